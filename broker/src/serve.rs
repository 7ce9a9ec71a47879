//! The broker as a whole: every core's room comes up in order, serves, and goes down in order.
//!
//! The first core leads. In order: raft's streams on every core (rewritten where the number of cores has changed), the
//! broker's registration, topics that a crash has left half made, new leader epochs after an unclean stop, the logs,
//! the image, the listeners. Down: listeners drain, logs are sealed, raft stops, the marker of a clean stop is put.

use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select;
use heizer_raft::{GroupImage, read_groups};
use heizer_runtime::cores::{self, CoreGone, CoreId};
use heizer_runtime::net::Listener;
use heizer_runtime::time::Instant;
use heizer_runtime::{fs, host, preflight, task, time};

use crate::api;
use crate::config::{BrokerConfig, Endpoint};
use crate::data_dir::{DataDir, DataDirError, Placer, Plan, Streams, Survey, put_clean_marker};
use crate::front::{self, FrontError};
use crate::metadata::ClusterCommand;
use crate::shard::{ControlError, Node, Shard, StartError, here};
use crate::supervision::Supervision;

/// Why the broker did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are the documentation")]
pub enum ServeError {
    #[error(transparent)]
    Preflight(#[from] preflight::PreflightError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot resolve {}: {source}; give an address of this host", endpoint.host_port())]
    Resolve { endpoint: Endpoint, source: io::Error },
    #[error("listeners: {0} are configured and one is served so far; remove the others")]
    SeveralListeners(usize),
    #[error("{cores} cores are asked for and {available} are available; lower --cores")]
    TooFewCores { cores: usize, available: usize },
    #[error("the cluster was made with {found} raft groups; set heizer.raft.groups = {found}")]
    GroupCount { found: u16 },
    #[error("address {addr} is in use or cannot be bound ({source}); choose another one with {flag}")]
    Bind { addr: SocketAddr, source: io::Error, flag: &'static str },
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error(transparent)]
    Host(#[from] host::StartError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    CannotGoOn(Arc<str>),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    CoreGone(#[from] CoreGone),
}

/// What every core gets at the start.
#[derive(Debug)]
pub struct Setup {
    /// The broker.
    pub node: Arc<Node>,
    /// The listener as it was configured.
    pub endpoint: Endpoint,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the admin listener is; none in simulations.
    pub admin: Option<SocketAddr>,
    /// Whether the ready line goes to standard output, and word to the service manager.
    pub announce: bool,
}

/// Runs the broker until it is asked to stop. Blocks.
pub fn run(config: BrokerConfig) -> Result<(), ServeError> {
    // The others may be missing; what they can do is seen when they are claimed.
    let report = preflight::check(&[&config.log_dirs[config.metadata_log_dir]])?;
    let claims = DataDir::claim_all(&config.log_dirs, config.metadata_log_dir, config.node_id)?;
    let (_held, failures) = split(claims);
    for path in &report.buffered {
        tracing::warn!(path = %path.display(), "no direct I/O here: files go through the page cache");
    }
    let cpus = cpus(&config)?;
    let host_config = host::Config { cpus: cpus.clone(), spin: config.spin, ..host::Config::default() };
    let setup = Arc::new(setup(config, cpus.len(), failures)?);
    let outcomes = host::run(&host_config, move || core_main(setup.clone()))?;
    outcomes.into_iter().collect()
}

fn split(claims: Vec<Result<DataDir, DataDirError>>) -> (Vec<DataDir>, Vec<Option<String>>) {
    let mut held = Vec::new();
    let failures = claims.into_iter().map(|claim| match claim {
        Ok(dir) => {
            held.push(dir);
            None
        }
        Err(error) => Some(error.to_string()),
    });
    let failures = failures.collect();
    (held, failures)
}

fn cpus(config: &BrokerConfig) -> Result<Vec<usize>, ServeError> {
    let mut cpus = host::available_cpus();
    match config.cores {
        Some(cores) if cores > cpus.len() => {
            return Err(ServeError::TooFewCores { cores, available: cpus.len() });
        }
        Some(cores) => cpus.truncate(cores),
        None => {}
    }
    Ok(cpus)
}

fn setup(
    config: BrokerConfig,
    core_count: usize,
    failures: Vec<Option<String>>,
) -> Result<Setup, ServeError> {
    let [endpoint] = config.listeners.as_slice() else {
        return Err(ServeError::SeveralListeners(config.listeners.len()));
    };
    let endpoint = endpoint.clone();
    let resolve = |endpoint: &Endpoint| {
        endpoint.resolve().map_err(|source| ServeError::Resolve { endpoint: endpoint.clone(), source })
    };
    let (listen, admin) = (resolve(&endpoint)?, resolve(&config.admin_listen)?);
    let core_count = u16::try_from(core_count).expect("core counts fit u16");
    let node = Node::new(config, core_count, failures);
    Ok(Setup { node: Arc::new(node), endpoint, listen, admin: Some(admin), announce: true })
}

/// What each core runs; the first one leads.
pub async fn core_main(setup: Arc<Setup>) -> Result<(), ServeError> {
    let shard = Shard::install(setup.node.clone(), api::error_code);
    if cores::current() != CoreId(0) {
        shard.ended().await;
        return Ok(());
    }
    let outcome = lead(&setup).await;
    for core in cores::all() {
        cores::cast(core, || here().end());
    }
    outcome
}

async fn lead(setup: &Arc<Setup>) -> Result<(), ServeError> {
    let started = time::now();
    let supervision = if setup.announce { Supervision::start() } else { Supervision::none() };
    cores::call_all(|| async {
        while cores::try_room::<Shard>().is_none() {
            task::yield_now().await;
        }
    })
    .await?;
    check_addresses(setup).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cores = cores::count(),
        data_dir = %setup.node.metadata_path().display(),
        data_dirs = setup.node.dirs.len(),
        "starting"
    );
    open_streams(setup).await?;
    let survey = survey(setup).await?;
    open_shards(&survey).await?;
    let servers = front::listen(&setup.endpoint.name, setup.listen).await?;
    register(setup, servers).await?;
    let admin = match setup.admin {
        Some(addr) => Some(front::serve_admin(addr, started)?),
        None => None,
    };
    cores::call_all(|| async { here().start_background() }).await?;
    cores::call_all(|| async { front::serve() }).await?;
    announce(setup, servers, started);
    supervision.ready(servers);
    select(pin!(host::shutdown()), pin!(here().fatal())).await;
    supervision.stopping();
    stop(setup).await?;
    if let Some((admin, end)) = admin {
        drop(end);
        // Whether it ended in a panic has been logged.
        let _ = admin.await;
    }
    match here().fatal_reason() {
        Some(reason) => Err(ServeError::CannotGoOn(reason)),
        None => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { path, source }
}

/// Fails early where somebody listens already: sockets that share a port would hide it. The sockets of a process that
/// was killed outlive it by some tenths of a second, until the kernel has taken its ring apart.
async fn check_addresses(setup: &Setup) -> Result<(), ServeError> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(10);
    let until = time::now() + PATIENCE;
    let flagged = [(Some(setup.listen), "--listen"), (setup.admin, "--admin-listen")];
    for (addr, flag) in flagged {
        let Some(addr) = addr else { continue };
        while let Err(source) = Listener::check_free(addr) {
            if source.kind() != io::ErrorKind::AddrInUse || time::now() >= until {
                return Err(ServeError::Bind { addr, source, flag });
            }
            time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Opens every core's raft stream. Where the number of cores has changed since the last start, the groups' states
/// are written to streams of the new layout first, and the manifest then tells which streams count.
async fn open_streams(setup: &Arc<Setup>) -> Result<(), ServeError> {
    let (data_dir, layout) = (setup.node.metadata_path(), &setup.node.layout);
    let stored = Streams::load(data_dir).await?;
    if let Some(old) = &stored
        && old.layout.groups() != layout.groups()
    {
        return Err(ServeError::GroupCount { found: old.layout.groups() });
    }
    let generation = stored.as_ref().map_or(0, |old| old.generation);
    let moved = stored.as_ref().is_some_and(|old| old.layout != *layout);
    let streams = Streams { generation: generation + u32::from(moved), layout: layout.clone() };
    let mut imports: Vec<GroupImage> = Vec::new();
    if let Some(old) = stored.as_ref().filter(|_| moved) {
        tracing::info!(from = old.layout.cores(), to = layout.cores(), "the number of cores has changed");
        // What an attempt that was cut short has left.
        fs::remove_dir_all(&streams.root(data_dir)).await.map_err(at(data_dir))?;
        for core in 0..old.layout.cores() {
            let groups = read_groups(&old.directory(data_dir, core), here().storage())
                .await
                .map_err(StartError::from)?;
            imports.extend(groups);
        }
    }
    make_stream_root(data_dir, &streams).await.map_err(at(data_dir))?;
    if stored.is_none() {
        // Before there is anything to be read under the wrong layout, should this start be cut short.
        streams.store(data_dir).await?;
    }
    let opening = cores::all().map(|core| {
        let directory = streams.directory(data_dir, core.0);
        let (here_too, elsewhere) =
            std::mem::take(&mut imports).into_iter().partition::<Vec<_>, _>(|image: &GroupImage| {
                layout.core_of_raft_group(image.group()) == Some(core.0)
            });
        imports = elsewhere;
        cores::call(core, move || async move { here().open_raft(&directory, here_too).await })
    });
    let opening: Vec<_> = opening.collect();
    for opened in futures::future::join_all(opening).await {
        opened??;
    }
    if moved {
        streams.store(data_dir).await?;
    }
    remove_other_generations(data_dir, &streams).await.map_err(at(data_dir))
}

/// What the manifest has left behind, now or before a crash.
async fn remove_other_generations(data_dir: &Path, streams: &Streams) -> io::Result<()> {
    let raft = data_dir.join("raft");
    for entry in fs::read_dir(&raft).await? {
        let generation = entry.name.parse::<u32>();
        if entry.is_dir && generation.is_ok_and(|generation| generation != streams.generation) {
            fs::remove_dir_all(&raft.join(&entry.name)).await?;
        }
    }
    Ok(())
}

/// The directory that the streams' own are made in is there, and stays: a stream syncs no more than its own entry.
async fn make_stream_root(data_dir: &Path, streams: &Streams) -> io::Result<()> {
    let root = streams.root(data_dir);
    fs::create_dir_all(&root).await?;
    for parent in root.ancestors().skip(1).take_while(|parent| parent.starts_with(data_dir)) {
        fs::sync_dir(parent).await?;
    }
    Ok(())
}

/// Looks at the data directories and makes them known to every core.
async fn survey(setup: &Setup) -> Result<Survey, ServeError> {
    let node = &setup.node;
    let paths: Vec<_> = node.dirs.iter().map(|dir| (dir.path.clone(), dir.failure.clone())).collect();
    let survey = Survey::take(&paths, node.metadata_dir, node.id, || here().random_uuid()).await?;
    let facts: Arc<[_]> = survey.dirs.clone().into();
    each_core(move || {
        let facts = facts.clone();
        async move { Ok(here().set_dirs(&facts).await?) }
    })
    .await?;
    Ok(survey)
}

/// From what raft says to open logs on every core.
async fn open_shards(survey: &Survey) -> Result<(), ServeError> {
    let clean = !survey.is_unclean();
    if !clean {
        each_core(|| async { here().bump_leader_epochs().await }).await?;
    }
    let leader = here();
    let image = leader.built_image();
    each_core(move || {
        let image = image.clone();
        async move { here().drop_strangers(image).await }
    })
    .await?;
    leader.share_image().await?;
    place_partitions(survey).await?;
    leader.finish_adoptions().await?;
    leader.share_image().await?;
    let reports = cores::call_all(|| async { here().open_partitions().await }).await?;
    let (mut partitions, mut scanned_bytes, mut cut, mut offline) = (0, 0, 0, 0);
    for report in reports {
        offline += report.offline;
        partitions += report.partitions;
        scanned_bytes += report.scanned_bytes;
        cut += report.cut;
    }
    tracing::info!(partitions, offline, clean, scanned_bytes, cut, "partitions are open");
    Ok(())
}

/// Finds out where every partition is, and tells every core.
async fn place_partitions(survey: &Survey) -> Result<(), ServeError> {
    let leader = here();
    let image = leader.built_image();
    let mut placer = Placer::new(survey.log_counts());
    let plan = Plan::make(survey, &image, &mut placer).await?;
    plan.clean_up(survey, &image).await?;
    leader.set_placer(placer);
    let plan = Arc::new(plan);
    cores::call_all(move || {
        let plan = plan.clone();
        async move { here().set_plan(plan) }
    })
    .await?;
    Ok(())
}

async fn each_core<F, Fut>(f: F) -> Result<(), ServeError>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), StartError>> + 'static,
{
    for outcome in cores::call_all(f).await? {
        outcome?;
    }
    Ok(())
}

/// Tells the cluster who this broker is and where it is found.
async fn register(setup: &Setup, bound: SocketAddr) -> Result<(), ServeError> {
    let shard = here();
    let advertised = setup.node.config.advertised(&setup.endpoint.name, bound);
    let cluster_id = base64_uuid(&shard.random_uuid());
    shard.propose_cluster(ClusterCommand::SetClusterId { id: cluster_id }).await?;
    shard
        .propose_cluster(ClusterCommand::RegisterBroker {
            id: setup.node.id,
            host: advertised.host,
            port: advertised.port,
            rack: None,
            incarnation: uuid::Uuid::from_bytes(shard.random_uuid()),
        })
        .await?;
    shard.share_image().await?;
    Ok(())
}

/// A uuid as Kafka writes cluster ids: base64 for URLs, without padding.
fn base64_uuid(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const CHARACTERS: u32 = 22;
    let value = u128::from_be_bytes(*bytes);
    // 22 characters hold 132 bits: four zero bits follow the 128.
    let character = |at: u32| {
        let shift = 132 - 6 * (at + 1);
        let six = if shift >= 4 { value >> (shift - 4) } else { value << (4 - shift) };
        char::from(ALPHABET[(six & 63) as usize])
    };
    (0..CHARACTERS).map(character).collect()
}

fn announce(setup: &Setup, bound: SocketAddr, started: Instant) {
    let took_ms = u64::try_from((time::now() - started).as_millis()).unwrap_or(u64::MAX);
    tracing::info!(addr = %bound, took_ms, "ready");
    if setup.announce {
        let mut out = io::stdout().lock();
        // Nobody may be there to read it.
        drop(writeln!(out, "heizer ready on {bound}").and_then(|()| out.flush()));
    }
}

async fn stop(setup: &Setup) -> Result<(), ServeError> {
    tracing::info!("stopping");
    cores::call_all(|| async {
        here().stop_serving();
        front::drain().await;
    })
    .await?;
    let closed = cores::call_all(|| async { here().close().await }).await?;
    let raft_failed = closed.iter().any(|report| report.raft_failed);
    for (at, dir) in here().dirs().iter().enumerate() {
        let badly = raft_failed || closed.iter().any(|report| report.badly_closed.contains(&at));
        if badly || dir.log_dir.failure().is_some() {
            continue;
        }
        let path = dir.log_dir.path();
        match put_clean_marker(path).await {
            Err(source) if at == setup.node.metadata_dir => {
                return Err(ServeError::Io { path: path.to_owned(), source });
            }
            Err(error) => {
                tracing::warn!(directory = %path.display(), %error, "the stop could not be marked as clean")
            }
            Ok(()) => {}
        }
    }
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_written_as_kafka_does() {
        assert_eq!(base64_uuid(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64_uuid(&[0xff; 16]), "_____________________w");
        assert_eq!(base64_uuid(b"0123456789abcdef"), "MDEyMzQ1Njc4OWFiY2RlZg");
    }
}
