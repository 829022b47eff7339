"""The Kafka endpoint against a real Apache Kafka, read by a client that we did not write."""
