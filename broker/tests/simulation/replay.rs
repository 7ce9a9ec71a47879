//! A seed is a run: whatever fails once fails again.

use std::time::Duration;

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, batch};

fn run(seed: u64) -> (u64, Vec<(i64, String)>) {
    let mut cluster = Cluster::new(seed);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 4, &[]).await;
        for number in 0..20 {
            kafka::produced(&connection, "t", number % 4, batch(&["a", "b"])).await;
        }
    });
    cluster.crash();
    let read = cluster.run(async { kafka::read_all(&connect().await, "t", 2).await });
    cluster.sim.run_for(Duration::from_secs(20));
    cluster.stop();
    let hash = cluster.sim.schedule_hash();
    cluster.expect_warning("cut the end off a");
    cluster.finish();
    (hash, read)
}

#[test]
fn the_same_seed_twice_gives_the_same_schedule() {
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0, "the seed decides something");
    assert_eq!(first.1.len(), 10);
    assert_eq!(first.1, other.1);
}
