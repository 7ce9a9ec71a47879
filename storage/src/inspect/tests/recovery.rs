//! The dry run says what opening then does.

use std::time::Duration;

use heizer_runtime::sim::Sim;
use heizer_runtime::{random, time};

use super::*;
use crate::inspect::{DryRun, NotedLogs, recover_dry_run};

async fn dry_run() -> DryRun {
    let noted = NotedLogs::read(Path::new(DATA)).await.expect("read");
    recover_dry_run(&partition().await, &noted, &|_, _| ()).await.expect("read")
}

fn assert_same(run: &DryRun, report: &RecoveryReport, seed: u64) {
    assert_eq!(run.refused, None, "seed {seed}");
    let planned = run.cut.as_ref().map(|cut| (cut.bytes, run.log_end, cut.reason.clone()));
    let done = report.cut.as_ref().map(|cut| (cut.bytes, cut.at_offset, cut.reason.clone()));
    assert_eq!(planned, done, "seed {seed}");
    assert_eq!((run.held_bytes, run.log_end), (report.scanned_bytes, report.log_end), "seed {seed}");
}

/// contract L8
#[test]
fn a_dry_run_after_a_crash_says_what_recovery_then_does_and_changes_nothing() {
    let (mut cuts, mut middle) = (0, 0);
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        sim.start(node, || async {
            let (log, _) = open(60_000).await;
            for at in 0..4000 {
                append(&log, at, i32::try_from(at / 150).expect("small"));
                match random::below(400) {
                    0 => time::sleep(Duration::from_secs(6)).await,
                    1..20 => time::sleep(Duration::from_micros(300)).await,
                    _ => {}
                }
            }
            time::sleep(Duration::from_secs(3600)).await;
        });
        sim.run_for(Duration::from_micros(20_000_000 * (seed % 3) + 700 * seed));
        sim.crash(node);
        let (run, report) = sim.run(node, async move {
            if !fs::exists(Path::new(DIR)).await.expect("looked up") {
                return (None, None);
            }
            let before = fs::read_dir(Path::new(DIR)).await.expect("listed");
            let run = dry_run().await;
            assert_eq!(fs::read_dir(Path::new(DIR)).await.expect("listed"), before, "seed {seed}");
            (Some(run), Some(open(60_000).await.1))
        });
        let (Some(run), Some(report)) = (run, report) else { continue };
        assert_same(&run, &report, seed);
        cuts += u32::from(run.cut.is_some());
        middle += u32::from(run.start.is_some_and(|start| start.position > 0));
    }
    assert!(cuts > 0 && middle > 0, "{cuts} cuts, {middle} scans from a checkpoint");
}

/// contract L8: damage where a crash cannot have torn the log is kept.
#[test]
fn a_segment_damaged_in_the_middle_is_said_to_be_kept() {
    let mut sim = Sim::new(11);
    let node = sim.node(1);
    sim.run(node, async {
        closed_log().await;
        fs::remove_file(&Path::new(DIR).join(&names(".index").await[1])).await.expect("removed");
        fs::sync_dir(Path::new(DIR)).await.expect("synced");
    });
    sim.crash(node);
    let second = sim.run(node, async { Path::new(DIR).join(&names(".log").await[1]) });
    sim.flip_bit(node, &second, 2 * 1055 + 100, 3).expect("there");
    sim.run(node, async move {
        let run = dry_run().await;
        assert_eq!((run.cut.clone(), run.log_end), (None, 180));
        let damaged = &run.damaged[0];
        assert_eq!((run.damaged.len(), &damaged.file, &*damaged.reason), (1, &second, "CRC does not match"));
        let (_, report) = open(10_000).await;
        assert_same(&run, &report, 11);
    });
}

#[test]
fn a_log_that_would_not_be_opened_is_said_to_be_refused() {
    heizer_runtime::sim::block_on(1, async {
        closed_log().await;
        fs::write_atomic(&Path::new(DIR).join("partition.metadata"), b"version: 1\n".to_vec())
            .await
            .expect("written");
        let run = dry_run().await;
        assert!(run.refused.as_ref().is_some_and(|reason| reason.contains("partition.metadata")), "{run:?}");
    });
}
