"""Where Heizer answers otherwise than Apache Kafka on purpose, and why."""

# (scenario and step, field, why Heizer answers otherwise); regular expressions that match from the start.
ACCEPTED: list[tuple[str, str, str]] = [
    # Settings.
    (r".*", r".*\bheizer\.durability$", "a setting of Heizer's own"),
    (
        r".*",
        r".*configs\.((leader|follower)\.replication\.throttled\.replicas"
        r"|local\.retention\.(ms|bytes)|remote\.(storage\.enable|log\.(copy\.disable|delete\.on\.disable)))$",
        "settings of what Heizer does not do (replication throttles, a second tier) are not listed",
    ),
    (
        r".*",
        r".*\bmin\.insync\.replicas\.config_source$",
        "Kafka stores the default of min.insync.replicas as a dynamic one (KIP-966)",
    ),
    (r"create_topics: config retention_spaces", r".*retention\.ms\.value$", "Kafka keeps the text, Heizer the number"),
    (
        r"create_topics: collides in one request",
        r"topics\.col_x.*",
        "Kafka overlooks a collision within one request, and then one of the two metrics hides the other",
    ),
    (
        r"create_topics: 2147483647 partitions",
        r".*error_code$",
        "Kafka refuses more than 10,000 partitions in one request as a matter of policy, Heizer more than 100,000",
    ),
    (r"create_topics: (validate only|name 6|config )", r".*topic_id$", "nothing is created: there is no id to tell"),
    (r"create_topics: config policy_spaces", r".*cleanup\.policy\.value$", "Kafka keeps the text, Heizer the list"),
    (
        r"create_topics: config preallocate_upper",
        r".*preallocate\.value$",
        "Kafka keeps the text, Heizer the truth value",
    ),
    (
        r"create_topics: config compression_(zstd|uncompressed)$",
        r".*",
        "a topic whose records are to be re-encoded is refused rather than served otherwise",
    ),
    (
        r"create_topics: config (remote_|local_retention|leader_throttle$|follower_throttle$)",
        r".*",
        "settings of what is not served are refused: whoever sets them relies on them",
    ),
    (
        r"delete_topics: (the same (name|id) twice|name and id of one)",
        r".*",
        "said once per topic, in the words of the request",
    ),
    (r"metadata: nil id", r".*", "Kafka fails the request as a whole, with UNKNOWN_SERVER_ERROR"),
    # Produce and Fetch.
    (r"produce: ", r".*\berror_message$", "Heizer says why, also where Kafka does not"),
    (r"produce: ", r".*\bindex (0|1)\.log_start_offset$", "told with success only"),
    (
        r"produce: (wrong: future|keyless)",
        r".*record_errors",
        "the whole batch is refused, which record it was is not told",
    ),
    (r"produce: wrong( at v3)?: epoch negative", r".*", "a producer id without an epoch is no producer: contract L3"),
    (r"produce: wrong( at v3)?: trailing byte", r".*", "Kafka drops what follows the batch, Heizer refuses it"),
    (r"produce: wrong( at v3)?: compression", r".*error_code$", "Kafka: UNKNOWN_SERVER_ERROR"),
    (r"produce: wrong( at v3)?: gzip of garbage", r".*", "compressed records are not looked into: DESIGN, section 3"),
    (r"produce: no partitions", r"responses", "a topic without partitions is answered as such"),
    (r"produce: sequence repeats", r".*log_append_time_ms$", "a topic of create time has no append time to tell"),
    (r"list_offsets: isolation 9", r".*", "Kafka: UNKNOWN_SERVER_ERROR"),
    (r"list_offsets: one partition twice", r"topics\..*\.partitions$", "refused each time it is named"),
    (r"epochs: epoch -2", r".*", "Kafka answers an epoch that cannot be with itself"),
    (
        r"fetch: (partition|unknown|invalid|nil|session)",
        r".*aborted_transactions$",
        "Kafka: an empty list beside an error, where nobody looks",
    ),
    (r"fetch: less than none", r".*", "Kafka: UNKNOWN_SERVER_ERROR; here a negative limit is none at all"),
    (r"fetch: one partition twice", r".*", "each time it is named it is answered"),
    # Groups.
    (r"coordinators: (v[123]|empty)$", r"error_message$", "Kafka: the text NONE"),
    (r"coordinators: share", r".*error_message$", "Heizer says why"),
    # DescribeConfigs.
    (r"configs: ", r".*\.error_message$", "Kafka: the empty text where there is no error"),
    (
        r"configs: topic with settings",
        r".*\.(flush\.ms|retention\.ms|segment\.ms|segment\.jitter\.ms)\.synonyms",
        "Heizer names every setting that the default comes from, Kafka only those in the same unit",
    ),
    (r"configs: .*", r".*\bmin\.insync\.replicas\.synonyms", "Kafka stores its default as a dynamic one (KIP-966)"),
    (r"configs: broker default", r".*", "Kafka stores min.insync.replicas there (KIP-966)"),
    # Administration.
    (
        r"(create_partitions|alter_configs|incremental_alter_configs): ",
        r".*\berror_message$",
        "Heizer says why, also where Kafka does not",
    ),
    (r"describe_topic_partitions: name 0$", r"topics\..*", "Kafka: UNKNOWN_SERVER_ERROR for the empty name"),
    (r"incremental_alter_configs: operation (4|-1)", r".*\berror_code$", "Kafka: UNKNOWN_SERVER_ERROR"),
    (r"alter_configs: the same twice$", r".*", "Kafka closes the connection"),
    (r"delete_records: where it starts", r"topics\..*\.partitions$", "refused each time it is named"),
    (r"config_resources: (v1|type 8)$", r"rows$", "Heizer has no loggers whose levels could be set"),
]
