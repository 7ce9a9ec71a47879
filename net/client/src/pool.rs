//! Connections by address, made once however many callers ask at the same time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use heizer_runtime::sync::Event;

use crate::connection::Connection;
use crate::error::ClientError;

/// One connection to each broker that was asked for.
///
/// Answers on a connection come in request order, so whatever makes the broker wait (fetches, group joins) has a
/// pool of its own and holds up nobody else.
#[derive(Default)]
pub(crate) struct Pool {
    client_id: String,
    request_timeout: Duration,
    places: RefCell<BTreeMap<String, Place>>,
    changed: Event,
}

/// A connection, or somebody who is making it.
enum Place {
    Open(Connection),
    Connecting,
}

impl Pool {
    pub(crate) fn new(client_id: &str, request_timeout: Duration) -> Pool {
        Pool { client_id: client_id.to_owned(), request_timeout, ..Pool::default() }
    }

    /// The connection to `addr`, made if need be; callers that come meanwhile wait for the same one.
    pub(crate) async fn connect(&self, addr: &str) -> Result<Connection, ClientError> {
        loop {
            let changed = self.changed.listen();
            match self.places.borrow().get(addr) {
                Some(Place::Open(connection)) if !connection.is_closed() => return Ok(connection.clone()),
                Some(Place::Connecting) => {}
                _ => break,
            }
            changed.await;
        }
        let mut making = Making { pool: self, addr, made: None };
        let previous = self.places.borrow_mut().insert(addr.to_owned(), Place::Connecting);
        drop(previous);
        let connection = Connection::connect(addr, &self.client_id, self.request_timeout).await?;
        making.made = Some(connection.clone());
        Ok(connection)
    }

    /// Any connection that is open.
    pub(crate) fn any_open(&self) -> Option<Connection> {
        self.places.borrow().values().find_map(|place| match place {
            Place::Open(connection) if !connection.is_closed() => Some(connection.clone()),
            _ => None,
        })
    }
}

/// Whoever makes a connection leaves its place either open or empty, also when dropped half-way.
struct Making<'a> {
    pool: &'a Pool,
    addr: &'a str,
    made: Option<Connection>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut places = self.pool.places.borrow_mut();
        let previous = match self.made.take() {
            Some(connection) => places.insert(self.addr.to_owned(), Place::Open(connection)),
            None => places.remove(self.addr),
        };
        drop(places);
        drop(previous);
        self.pool.changed.notify_all();
    }
}
