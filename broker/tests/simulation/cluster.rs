//! A broker on one simulated node and clients on another, and how a test drives them.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heizer_broker::config::BrokerConfig;
use heizer_broker::serve::{Setup, core_main};
use heizer_broker::shard::Node;
use heizer_client::{Client, ClientConfig, Connection};
use heizer_runtime::sim::{NodeId, Sim};
use heizer_runtime::{fs, time};
use tracing::Level;

use crate::logs::{self, Line};

/// Where the broker, which is the first node, listens.
pub(crate) const ADDR: &str = "10.0.0.1:9092";
pub(crate) const DATA_DIR: &str = "/var/lib/heizer";

const SETTINGS: [(&str, &str); 6] = [
    ("listeners", "PLAINTEXT://10.0.0.1:9092"),
    ("log.dirs", DATA_DIR),
    ("heizer.raft.groups", "4"),
    ("num.partitions", "1"),
    ("offsets.topic.num.partitions", "3"),
    ("group.initial.rebalance.delay.ms", "0"),
];

pub(crate) struct Cluster {
    pub(crate) sim: Sim,
    pub(crate) broker: NodeId,
    pub(crate) client: NodeId,
    cores: usize,
    config: BrokerConfig,
    /// What each core of the current life of the broker ended with.
    ended: Rc<RefCell<Vec<Result<(), String>>>>,
    warnings_expected: Vec<&'static str>,
    lines: Vec<Line>,
}

impl Cluster {
    /// A broker of two cores that has been started.
    pub(crate) fn new(seed: u64) -> Cluster {
        Cluster::with(seed, 2, &[])
    }

    /// A broker of `cores` cores, started with `settings` on top of the tests' own.
    pub(crate) fn with(seed: u64, cores: usize, settings: &[(&str, &str)]) -> Cluster {
        logs::start();
        let all = SETTINGS.iter().chain(settings).copied();
        let config = BrokerConfig::from_settings(all).expect("settings of a test are valid");
        let mut sim = Sim::new(seed);
        let (broker, client) = (sim.node(cores), sim.node(1));
        assert!(ADDR.starts_with(&broker.ip().to_string()), "the broker is the first node");
        let mut cluster = Cluster {
            sim,
            broker,
            client,
            cores,
            config,
            ended: Rc::default(),
            warnings_expected: Vec::new(),
            lines: Vec::new(),
        };
        cluster.make_data_dir();
        cluster.start();
        cluster
    }

    /// What the real process does before its cores start.
    fn make_data_dir(&mut self) {
        let dirs = self.config.log_dirs.clone();
        self.sim.run(self.broker, async move {
            for data_dir in dirs {
                fs::create_dir_all(&data_dir).await.expect("made");
                for parent in data_dir.ancestors().skip(1) {
                    fs::sync_dir(parent).await.expect("synced");
                }
            }
        });
    }

    /// Starts the broker, which is down.
    pub(crate) fn start(&mut self) {
        let config = self.config.clone();
        let cores = u16::try_from(self.cores).expect("a few cores");
        let failures = vec![None; config.log_dirs.len()];
        let node = Node::new(config, cores, failures);
        let setup = Arc::new(Setup {
            endpoint: node.config.listeners[0].clone(),
            listen: ADDR.parse().expect("an address"),
            node: Arc::new(node),
            admin: None,
            announce: false,
        });
        self.ended = Rc::default();
        let ended = self.ended.clone();
        self.sim.start(self.broker, move || {
            let (setup, ended) = (setup.clone(), ended.clone());
            async move {
                let outcome = core_main(setup).await.map_err(|error| error.to_string());
                ended.borrow_mut().push(outcome);
            }
        });
    }

    /// Starts the broker, which is down, with another number of cores.
    pub(crate) fn start_with_cores(&mut self, cores: usize) {
        self.cores = cores;
        self.sim.set_cores(self.broker, cores);
        self.start();
    }

    /// SIGTERM, and the end of the process when every core is done.
    pub(crate) fn stop(&mut self) {
        self.sim.request_shutdown(self.broker);
        let deadline = self.sim.now() + Duration::from_secs(60);
        while self.ended.borrow().len() < self.cores {
            assert!(self.sim.now() < deadline, "the broker does not stop: {:?}", self.ended.borrow());
            self.sim.run_for(Duration::from_millis(1));
        }
        assert!(self.ended.borrow().iter().all(Result::is_ok), "{:?}", self.ended.borrow());
        // What is left of the process.
        self.sim.kill(self.broker);
    }

    /// The process ends by itself, with this error of its first core; what is left of it goes.
    pub(crate) fn ends_by_itself(&mut self) -> String {
        let deadline = self.sim.now() + Duration::from_secs(60);
        while self.ended.borrow().len() < self.cores {
            assert!(self.sim.now() < deadline, "the broker goes on: {:?}", self.ended.borrow());
            self.sim.run_for(Duration::from_millis(1));
        }
        self.sim.kill(self.broker);
        let ended = self.ended.take();
        ended.into_iter().find_map(Result::err).expect("one core says why")
    }

    /// The power goes, and comes back.
    pub(crate) fn crash(&mut self) {
        self.sim.crash(self.broker);
        self.start();
    }

    /// SIGKILL, and a new process.
    pub(crate) fn kill(&mut self) {
        self.sim.kill(self.broker);
        self.start();
    }

    /// Runs `future` on the client's node until it is done. A broker that does not start is told of at once.
    #[track_caller]
    pub(crate) fn run<F>(&mut self, future: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let output = self.sim.run(self.client, future);
        assert!(self.ended.borrow().is_empty(), "the broker ended: {:?}", self.ended.borrow());
        output
    }

    /// Whether a file or directory of the broker's node is there.
    pub(crate) fn exists(&mut self, path: &str) -> bool {
        let path = Path::new(DATA_DIR).join(path);
        let was_up = self.sim.is_up(self.broker);
        let there =
            self.sim.run(self.broker, async move { fs::exists(&path).await.expect("the disk answers") });
        if !was_up {
            self.sim.kill(self.broker);
        }
        there
    }

    /// A warning or error that contains `text` fails nothing.
    pub(crate) fn expect_warning(&mut self, text: &'static str) {
        self.warnings_expected.push(text);
    }

    /// The lines logged so far that contain `text`.
    pub(crate) fn logged(&mut self, text: &str) -> Vec<String> {
        self.lines.extend(logs::take());
        self.lines.iter().map(|line| line.text.clone()).filter(|line| line.contains(text)).collect()
    }

    /// The end of every test: nothing has panicked, and nothing was logged that a healthy broker does not log.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        assert_eq!(self.sim.panics(), 0, "panics, seed {}: {:?}", self.sim.seed(), self.logged("panicked"));
        assert!(self.ended.borrow().iter().all(Result::is_ok), "{:?}", self.ended.borrow());
        self.logged("");
        for Line { level, text } in &self.lines {
            let expected = self.warnings_expected.iter().any(|expected| text.contains(expected));
            assert!(*level > Level::WARN || expected, "unexpected {level}: {text}");
        }
    }
}

/// A connection to the broker, as soon as it listens.
pub(crate) async fn connect() -> Connection {
    let deadline = time::now() + Duration::from_secs(30);
    loop {
        match Connection::connect(ADDR, "simulation", Duration::from_secs(60)).await {
            Ok(connection) => return connection,
            Err(error) => {
                let stuck = time::now() >= deadline;
                assert!(!stuck, "{error}; the broker's log: {:#?}", logs::take());
            }
        }
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client that bootstraps from the broker.
pub(crate) fn client() -> Client {
    Client::new(ClientConfig::new([ADDR]))
}
