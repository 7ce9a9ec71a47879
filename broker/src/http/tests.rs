use std::cell::RefCell;
use std::net::SocketAddr;

use bytes::Bytes;
use heizer_runtime::{sim, task};

use super::*;

struct State(RefCell<Readiness>);

impl AdminState for State {
    fn readiness(&self) -> Readiness {
        self.0.borrow().clone()
    }

    fn metrics(&self) -> LocalBoxFuture<'_, String> {
        Box::pin(async { "heizer_cores 1\n# EOF\n".to_owned() })
    }
}

fn start(readiness: Readiness) -> (SocketAddr, Rc<State>) {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let addr = listener.local_addr();
    let state = Rc::new(State(RefCell::new(readiness)));
    drop(task::spawn(serve(listener, state.clone())));
    (addr, state)
}

async fn send(stream: &Stream, text: &str) {
    stream.write_all(vec![Bytes::copy_from_slice(text.as_bytes())]).await.expect("sent");
}

/// What comes until `enough` is in it, or until the end.
async fn receive(stream: &Stream, enough: &str) -> String {
    let mut buf = BytesMut::new();
    loop {
        let text = String::from_utf8_lossy(&buf).into_owned();
        if !enough.is_empty() && text.contains(enough) {
            return text;
        }
        buf.reserve(4_096);
        let (read, back) = stream.read(buf).await;
        buf = back;
        if !matches!(read, Ok(1..)) {
            return text;
        }
    }
}

async fn ask(addr: SocketAddr, text: &str) -> String {
    let stream = Stream::connect(addr).await.expect("connected");
    send(&stream, text).await;
    receive(&stream, "").await
}

#[test]
fn each_path_answers_and_readiness_follows_the_state() {
    sim::block_on(1, async {
        let (addr, state) = start(Readiness::NotReady("recovering logs".into()));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(ask(addr, &get("/healthz")).await.ends_with("\r\n\r\nok\n"));
        let answer = ask(addr, &get("/readyz")).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready: recovering logs\n"),
            "{answer}"
        );
        *state.0.borrow_mut() = Readiness::Ready;
        assert!(ask(addr, &get("/readyz")).await.starts_with("HTTP/1.1 200 OK\r\n"));
        let answer = ask(addr, &get("/metrics?all")).await;
        assert!(answer.contains("openmetrics-text") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(ask(addr, &get("/")).await.starts_with("HTTP/1.1 404 "));
        assert!(ask(addr, "PUT /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
        assert!(ask(addr, "\0\0\0\u{12}").await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn one_connection_carries_several_requests_also_ahead_of_their_answers() {
    sim::block_on(2, async {
        let (addr, _) = start(Readiness::Ready);
        let stream = Stream::connect(addr).await.expect("connected");
        send(&stream, "GET /healthz HTTP/1.1\r\n\r\n").await;
        receive(&stream, "ok\n").await;
        send(&stream, "GET /healthz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        let rest = receive(&stream, "").await;
        assert_eq!(rest.matches("HTTP/1.1 200 OK").count(), 2, "{rest}");
        assert!(rest.ends_with("ready\n"));
    });
}

#[test]
fn who_begins_a_request_and_stops_is_told_and_who_is_silent_is_closed() {
    sim::block_on(3, async {
        let (addr, _) = start(Readiness::Ready);
        let begun = time::now();
        assert!(ask(addr, "GET /hea").await.starts_with("HTTP/1.1 408 "));
        assert!(time::now() - begun >= REQUEST_MAX);
        let begun = time::now();
        let stream = Stream::connect(addr).await.expect("connected");
        assert_eq!(receive(&stream, "").await, "");
        assert!(time::now() - begun >= IDLE_MAX);
    });
}

#[test]
fn more_connections_than_are_served_at_a_time_wait_and_are_then_served() {
    sim::block_on(4, async {
        let (addr, _) = start(Readiness::Ready);
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(Stream::connect(addr).await.expect("connected"));
        }
        let stream = Stream::connect(addr).await.expect("connected");
        send(&stream, "GET /healthz HTTP/1.0\r\n\r\n").await;
        let waited = time::timeout(Duration::from_secs(1), receive(&stream, "ok\n")).await;
        assert!(waited.is_err(), "all places are taken");
        let stream = Stream::connect(addr).await.expect("connected");
        silent.drain(..2).for_each(|stream| stream.shutdown());
        send(&stream, "GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(receive(&stream, "").await.ends_with("ok\n"));
    });
}
