"""What the pipeline costs on given logs, beside what others need for the same bytes.

Directories in the kubelet's layout go in; out come Markdown tables with medians, each of things
measured in turns in one run. Speeds of machines differ by a factor of three and change by the
minute; the ratios hardly do.
"""
