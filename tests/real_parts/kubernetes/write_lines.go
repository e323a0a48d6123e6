// The only program of the image that runs on a test node. Without arguments it sleeps, as a pod's
// pause container does. Otherwise:
//
//	write_lines NAME LINES_PER_SECOND PADDING_BYTES LINES EXIT_CODE
//
// It writes lines "NAME.START NUMBER PADDING" until it is told to stop, or has written LINES of
// them (0: no end) and exits with EXIT_CODE. START tells one run of the container from the next.
// Every sixteenth line goes to stderr; each output counts from 0. The file /counts/NAME.START holds
// how many lines stdout and stderr have got.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const (
	burst       = 10 * time.Millisecond
	mostBehind  = time.Second
	stderrEvery = 16
)

// output is one of the two pipes to the container runtime.
type output struct {
	file   *os.File
	count  int
	buffer bytes.Buffer
}

func (out *output) add(name string, padding []byte) {
	fmt.Fprintf(&out.buffer, "%s %d %s\n", name, out.count, padding)
	out.count++
}

// flush blocks while the runtime does not read.
func (out *output) flush() {
	if _, err := out.file.Write(out.buffer.Bytes()); err != nil {
		panic(err)
	}
	out.buffer.Reset()
}

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) == 1 {
		<-stop
		return
	}
	start := time.Now()
	name := os.Args[1] + "." + strconv.FormatInt(start.UnixNano(), 36)
	rate, padding, lines, code := number(2), number(3), number(4), number(5)
	counts, err := os.Create("/counts/" + name)
	if err != nil {
		panic(err)
	}
	write(name, rate, bytes.Repeat([]byte("x"), padding), lines, counts, stop)
	if lines > 0 {
		os.Exit(code)
	}
}

func write(
	name string, rate int, padding []byte, lines int, counts *os.File, stop <-chan os.Signal,
) {
	outputs := [2]output{{file: os.Stdout}, {file: os.Stderr}}
	written, from := 0, time.Now()
	due := 0.0
	for lines == 0 || written < lines {
		select {
		case <-stop:
			return
		case <-time.After(burst):
		}
		now := time.Now()
		due += min(now.Sub(from), mostBehind).Seconds() * float64(rate)
		from = now
		for ; due >= 1 && (lines == 0 || written < lines); due-- {
			which := 0
			if written%stderrEvery == stderrEvery-1 {
				which = 1
			}
			outputs[which].add(name, padding)
			written++
		}
		outputs[0].flush()
		outputs[1].flush()
		line := fmt.Sprintf("%020d %020d\n", outputs[0].count, outputs[1].count)
		if _, err := counts.WriteAt([]byte(line), 0); err != nil {
			panic(err)
		}
	}
}

func number(at int) int {
	value, err := strconv.Atoi(os.Args[at])
	if err != nil {
		panic(err)
	}
	return value
}
