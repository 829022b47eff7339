"""What compare_kafka is made of: a broker with a backlog, who drains it, how that is measured, the page."""
