use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::join;

use crate::cores::{self, CoreId};
use crate::net::{Listener, Stream};
use crate::sim::{NodeId, Sim, block_on};
use crate::task::spawn;
use crate::time::{now, sleep, timeout};

const PORT: u16 = 9092;

fn any() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], PORT))
}

fn addr(node: NodeId) -> SocketAddr {
    SocketAddr::new(node.ip(), PORT)
}

async fn read_exactly(stream: &Stream, count: usize) -> io::Result<Vec<u8>> {
    let mut buf = BytesMut::with_capacity(count);
    while buf.len() < count {
        let (read, filled) = stream.read(buf).await;
        buf = filled;
        if read? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buf.to_vec())
}

async fn read_some(stream: &Stream) -> io::Result<Vec<u8>> {
    let (read, buf) = stream.read(BytesMut::with_capacity(1024)).await;
    read.map(|_| buf.to_vec())
}

/// Sends everything back, for ever.
async fn serve_echo() {
    let listener = Listener::bind(any()).expect("a free port");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        spawn(async move {
            loop {
                match read_some(&stream).await {
                    Ok(bytes) if !bytes.is_empty() => {
                        if stream.write_all(vec![Bytes::from(bytes)]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        });
    }
}

fn two_nodes(seed: u64) -> (Sim, NodeId, NodeId) {
    let mut sim = Sim::new(seed);
    let (server, client) = (sim.node(1), sim.node(1));
    sim.start(server, serve_echo);
    sim.run_for(Duration::from_millis(1));
    (sim, server, client)
}

#[test]
fn an_echo_gives_everything_back_in_order_over_partial_reads() {
    for seed in 0..20 {
        let (mut sim, server, client) = two_nodes(seed);
        sim.run(client, async move {
            let stream = Stream::connect(addr(server)).await.expect("connected");
            assert_eq!(stream.peer_addr(), addr(server));
            let sent: Vec<u8> = (0..500_000_u32).map(|number| (number % 251) as u8).collect();
            let parts = sent.chunks(70_001).map(Bytes::copy_from_slice).collect();
            let (written, read) = join(stream.write_all(parts), read_exactly(&stream, sent.len())).await;
            written.expect("written");
            assert!(read.expect("read") == sent);
        });
    }
}

#[test]
fn a_read_may_get_less_than_was_sent() {
    let (mut sim, server, client) = two_nodes(1);
    let lengths = sim.run(client, async move {
        let stream = Stream::connect(addr(server)).await.expect("connected");
        let mut lengths = Vec::new();
        for _ in 0..50 {
            stream.write_all(vec![Bytes::from_static(&[1; 100])]).await.expect("written");
            let mut left = 100;
            while left > 0 {
                let read = read_some(&stream).await.expect("read").len();
                lengths.push(read);
                left -= read;
            }
        }
        lengths
    });
    assert!(lengths.iter().any(|&length| length < 100));
}

#[test]
fn a_writer_waits_when_its_reader_does_not_read() {
    block_on(2, async {
        let listener = Listener::bind(any()).expect("a free port");
        let loopback = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().port()));
        let (client, server) = join(Stream::connect(loopback), listener.accept()).await;
        let (client, (server, _)) = (client.expect("connected"), server.expect("accepted"));
        let writer = client.clone();
        let written = spawn(async move { writer.write_all(vec![Bytes::from(vec![1; 1 << 20])]).await });
        sleep(Duration::from_secs(1)).await;
        assert!(!written.is_finished());
        read_exactly(&server, 1 << 20).await.expect("read");
        written.await.expect("no panic").expect("written");
    });
}

#[test]
fn closing_lets_what_was_sent_arrive_and_then_ends_the_stream() {
    block_on(3, async {
        let listener = Listener::bind(any()).expect("a free port");
        let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
        let (client, server) = join(Stream::connect(loopback), listener.accept()).await;
        let (client, (server, peer)) = (client.expect("connected"), server.expect("accepted"));
        assert_eq!((server.peer_addr(), client.peer_addr()), (peer, loopback));
        client.write_all(vec![Bytes::from_static(b"bye")]).await.expect("written");
        drop(client);
        assert_eq!(read_exactly(&server, 3).await.expect("read"), b"bye");
        assert_eq!(read_some(&server).await.expect("the end"), b"");
        let error = loop {
            if let Err(error) = server.write_all(vec![Bytes::from_static(b"?")]).await {
                break error;
            }
            sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_shutdown_wakes_a_pending_read_and_a_pending_write() {
    block_on(4, async {
        let listener = Listener::bind(any()).expect("a free port");
        let loopback = SocketAddr::from(([127, 0, 0, 1], PORT));
        let client = Stream::connect(loopback).await.expect("connected");
        let (reader, writer) = (client.clone(), client.clone());
        let read = spawn(async move { read_some(&reader).await });
        let write = spawn(async move { writer.write_all(vec![Bytes::from(vec![1; 1 << 20])]).await });
        sleep(Duration::from_millis(100)).await;
        client.shutdown();
        assert_eq!(read.await.expect("no panic").expect("the end"), b"");
        let error = write.await.expect("no panic").expect_err("shut down");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(listener);
    });
}

#[test]
fn nobody_listening_means_refused() {
    let mut sim = Sim::new(5);
    let (node, other) = (sim.node(1), sim.node(1));
    for target in [addr(node), addr(other), SocketAddr::from(([127, 0, 0, 1], PORT))] {
        let refused = sim.run(node, Stream::connect(target));
        assert_eq!(refused.expect_err("nobody there").kind(), io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn cores_that_bind_the_same_port_share_its_connections() {
    let mut sim = Sim::new(6);
    let node = sim.node(3);
    let accepted: Rc<RefCell<BTreeMap<CoreId, u32>>> = Rc::default();
    let counter = accepted.clone();
    sim.start(node, move || {
        let counter = counter.clone();
        async move {
            let listener = Listener::bind(any()).expect("shared");
            loop {
                listener.accept().await.expect("a connection");
                *counter.borrow_mut().entry(cores::current()).or_default() += 1;
            }
        }
    });
    sim.run_for(Duration::from_millis(1));
    let target = addr(node);
    sim.run(node, async move {
        for _ in 0..60 {
            Stream::connect(target).await.expect("connected");
        }
    });
    sim.run_for(Duration::from_millis(100));
    let accepted = accepted.borrow();
    assert_eq!((accepted.len(), accepted.values().sum::<u32>()), (3, 60));
}

#[test]
fn port_zero_takes_a_free_one_and_a_taken_loopback_port_is_refused_to_others() {
    let mut sim = Sim::new(7);
    let (node, other) = (sim.node(1), sim.node(1));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let bind = async move |addr| Listener::bind(addr);
    let first = sim.run(node, bind(loopback)).expect("a free port");
    let second = sim.run(node, bind(loopback)).expect("a free port");
    assert_ne!(first.local_addr().port(), 0);
    assert_ne!(first.local_addr(), second.local_addr());
    let taken = sim.run(other, bind(first.local_addr()));
    assert_eq!(taken.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    let target = first.local_addr();
    drop(first);
    sim.run(other, bind(target)).expect("free again");
}

#[test]
fn a_crash_resets_the_connections_of_its_node() {
    let (mut sim, server, client) = two_nodes(8);
    let stream = sim.run(client, async move {
        let stream = Stream::connect(addr(server)).await.expect("connected");
        stream.write_all(vec![Bytes::from_static(b"x")]).await.expect("written");
        read_exactly(&stream, 1).await.expect("read");
        stream
    });
    sim.crash(server);
    sim.run(client, async move {
        let error = read_some(&stream).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let refused = Stream::connect(addr(server)).await;
        assert_eq!(refused.expect_err("down").kind(), io::ErrorKind::ConnectionRefused);
    });
    sim.start(server, serve_echo);
    sim.run(client, async move {
        sleep(Duration::from_millis(1)).await;
        Stream::connect(addr(server)).await.expect("up again");
    });
}

#[test]
fn a_killed_process_closes_its_connections() {
    let (mut sim, server, client) = two_nodes(11);
    let stream = sim.run(client, Stream::connect(addr(server))).expect("connected");
    sim.run_for(Duration::from_millis(100));
    sim.kill(server);
    sim.run(client, async move {
        assert_eq!(read_some(&stream).await.expect("the end"), b"");
        let refused = Stream::connect(addr(server)).await;
        assert_eq!(refused.expect_err("down").kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_cut_holds_everything_back_until_it_heals() {
    let (mut sim, server, client) = two_nodes(9);
    let stream = sim.run(client, Stream::connect(addr(server))).expect("connected");
    sim.cut(server, client);
    let silent = stream.clone();
    sim.run(client, async move {
        silent
            .write_all(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")])
            .await
            .expect("buffered");
        timeout(Duration::from_secs(5), read_some(&silent)).await.expect_err("nothing gets through");
        timeout(Duration::from_secs(5), Stream::connect(addr(server))).await.expect_err("neither does this");
    });
    sim.heal(server, client);
    sim.run(client, async move {
        assert_eq!(read_exactly(&stream, 6).await.expect("read"), b"onetwo");
        Stream::connect(addr(server)).await.expect("connected");
    });
}

#[test]
fn a_connection_attempt_into_a_cut_times_out_after_minutes() {
    let (mut sim, server, client) = two_nodes(10);
    sim.cut_one_way(server, client);
    sim.run(client, async move {
        let started = now();
        let error = Stream::connect(addr(server)).await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(now() - started > Duration::from_secs(60));
    });
    sim.heal_all();
    sim.run(client, Stream::connect(addr(server))).expect("connected");
}
