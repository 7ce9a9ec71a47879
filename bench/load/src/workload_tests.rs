use super::*;

const SMALL: &str = r#"
name = "w"
measure_s = 5
[topic]
name = "t"
partitions = 4
[[producers]]
count = 2
acks = "1"
[[consumers]]
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Workload, String> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Workload::parse("w.toml", text, &overrides).map_err(|failure| failure.to_string())
}

fn small(overrides: &[&str]) -> Result<Workload, String> {
    parse(SMALL, overrides)
}

#[test]
fn what_is_left_out_has_its_default() {
    let workload = small(&[]).expect("it is sound");
    let expected = Producers { count: 2, acks: AcksSetting::Leader, ..Producers::default() };
    assert_eq!(workload.producers, [expected]);
    assert_eq!(workload.consumers, [Consumers::default()]);
    assert_eq!((workload.measure_s, workload.limit_s, workload.warmup_s), (5.0, 120.0, 0.0));
    assert_eq!((workload.places(), workload.topic.is_compacted()), (4, false));
}

#[test]
fn a_backlog_looks_as_the_first_producers_records_unless_it_says_otherwise() {
    let workload = small(&["backlog.bytes=1000", "producers.0.record_bytes=200", "backlog.batch_bytes=400"]);
    let expected = Backlog { bytes: 1_000, record_bytes: 200, batch_bytes: 400 };
    assert_eq!(workload.expect("it is sound").backlog, Some(expected));
}

#[test]
fn the_command_line_has_the_last_word() {
    let workload = small(&[
        "producers.0.rate=5000",
        "producers.0.acks=0",
        "topic.name=other",
        "topic.config.cleanup.policy=compact",
        "consumers.0.from=\"beginning\"",
        "measure_s=0.5",
    ]);
    let workload = workload.expect("it is sound");
    assert_eq!((workload.producers[0].rate, workload.producers[0].acks), (5_000.0, AcksSetting::None));
    assert_eq!((workload.topic.name.as_str(), workload.topic.is_compacted()), ("other", true));
    assert_eq!((workload.consumers[0].from, workload.measure_s), (Begin::Beginning, 0.5));
}

#[test]
fn a_workload_is_read_back_from_what_it_is_written_as() {
    let workload = small(&["backlog.bytes=1000"]).expect("it is sound");
    let written = toml::to_string(&workload).expect("it can be written");
    assert_eq!(parse(&written, &[]), Ok(workload));
}

#[test]
fn what_cannot_be_is_refused_in_one_line_with_file_and_key() {
    for (overrides, named) in [
        (&["topic.name=\"\""][..], "topic.name"),
        (&["topic.partitions=0"], "topic.partitions"),
        (&["topic.partitions=60000", "topic.topics=2"], "topic.partitions"),
        (&["measure_s=0"], "measure_s"),
        (&["warmup_s=-1"], "warmup_s"),
        (&["producers.0.count=0"], "producers.0.count"),
        (&["producers.0.record_bytes=39"], "producers.0.record_bytes"),
        (&["producers.0.batch_bytes=0"], "producers.0.batch_bytes"),
        (&["producers.0.random_fraction=1.1"], "producers.0.random_fraction"),
        (&["producers.0.random_fraction=nan"], "producers.0.random_fraction"),
        (&["producers.0.in_flight=0"], "producers.0.in_flight"),
        (&["producers.0.rate=-1"], "producers.0.rate"),
        (&["producers.0.idempotence=true"], "producers.0.idempotence"),
        (&["producers.0.idempotence=true", "producers.0.acks=all", "producers.0.in_flight=6"], "in_flight"),
        (&["producers.0.keys=5"], "producers.0.keys"),
        (&["producers.0.acks=2"], "acks"),
        (&["producers.0.compression=brotli"], "compression"),
        (&["producers.0.colour=red"], "colour"),
        (&["consumers.0.until=end"], "consumers.0.from"),
        (&["consumers.0.from=replay", "consumers.0.until=end"], "consumers.0.until"),
        (&["consumers.0.from=replay", "consumers.0.group=g"], "consumers.0.group"),
        (&["consumers.0.from=middle"], "from"),
        (&["consumers.0.fetch_max_bytes=0"], "consumers.0.fetch_max_bytes"),
        (&["producers=[]", "consumers=[]"], "producers"),
        (&["backlog.bytes=5", "backlog.record_bytes=10"], "backlog.record_bytes"),
    ] {
        let said = small(overrides).expect_err("it cannot be");
        assert!(said.starts_with("w.toml: ") && said.contains(named) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn a_wrong_assignment_is_refused_by_its_own_words() {
    for wrong in ["measure_s", "=5", "producers.7.rate=1", "producers.x.rate=1", "name.first=1"] {
        let said = small(&[wrong]).expect_err("it cannot be");
        assert!(said.starts_with(&format!("--set {wrong}: ")), "{said}");
    }
}

#[test]
fn what_is_no_toml_is_refused_with_its_line() {
    let said = parse("name = \"w\"\nmeasure_s = = 5\n", &[]).expect_err("it is no TOML");
    assert!(said.starts_with("w.toml: ") && said.contains("line 2") && !said.contains('\n'), "{said}");
}
