"""Parts of compare_kafka: a broker with a backlog, the consumers, the measurement, the page."""
