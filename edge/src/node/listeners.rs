//! Listening sockets: bound before anything else is done, all errors at once.
//!
//! Invariant: binding creates nothing on disk. Neighbours: `shards` accepts from them, `background` serves HTTP.

use super::Address;
use headwater_config::{Listener, Protocol};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections the kernel completes before they are accepted; beyond it they wait in the client.
const BACKLOG: i32 = 1_024;

/// One bound listener.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) protocol: Protocol,
    pub(crate) listener: TcpListener,
    pub(crate) bound: SocketAddr,
    /// What Kafka clients are told: host and port.
    pub(crate) advertised: (String, u16),
}

impl Bound {
    pub(crate) fn address(&self) -> Address {
        let (host, port) = &self.advertised;
        Address {
            protocol: self.protocol,
            bound: self.bound,
            advertised: if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            },
        }
    }
}

/// Binds all; the error names each that failed.
pub(crate) fn bind(listeners: &[Listener]) -> Result<Vec<Bound>, String> {
    let mut all = Vec::new();
    let mut failed = Vec::new();
    for listener in listeners {
        match bind_one(listener) {
            Ok(bound) => all.push(bound),
            Err(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::AddrInUse => "another process listens there",
                    io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
                    io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
                    _ => "the system refused",
                };
                let Listener { protocol, bind, .. } = listener;
                failed.push(format!("cannot listen for {protocol} on {bind}: {hint} ({error})"));
            }
        }
    }
    if failed.is_empty() { Ok(all) } else { Err(failed.join("\n")) }
}

fn bind_one(listener: &Listener) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(listener.bind), Type::STREAM, None)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&listener.bind.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener_socket: TcpListener = socket.into();
    let bound = listener_socket.local_addr()?;
    let advertised = match &listener.advertised {
        Some(address) => (address.host.clone(), address.port),
        None => (bound.ip().to_string(), bound.port()),
    };
    Ok(Bound { protocol: listener.protocol, listener: listener_socket, bound, advertised })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(bind: SocketAddr) -> Listener {
        Listener { protocol: Protocol::Mqtt, bind, advertised: None }
    }

    #[test]
    fn port_zero_is_resolved_and_a_taken_port_is_named() {
        let free = bind(&[listener("127.0.0.1:0".parse().unwrap())]).unwrap();
        let taken = free[0].bound;
        assert_ne!(taken.port(), 0);
        assert_eq!(free[0].address().advertised, taken.to_string());
        let error = bind(&[listener(taken), listener("192.0.2.1:0".parse().unwrap())]).unwrap_err();
        assert_eq!(error.lines().count(), 2, "both are reported: {error}");
        assert!(error.contains(&format!("mqtt on {taken}: another process")), "{error}");
    }
}
