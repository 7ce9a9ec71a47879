"""Scripts that are played to Heizer and to Apache Kafka alike; `tests/test_differential.py` compares the answers."""
