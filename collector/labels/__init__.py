"""What Kubernetes says of the node's pods. No line ever waits for it."""
