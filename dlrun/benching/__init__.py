"""What a net and its artifacts cost: latency, throughput, memory, size; measured side by side."""
