//! Listeners and connections: bounded, watched for dead peers, and closed in order when the member stops.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Url};

/// Of one request's headers, all together.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// What one stream may send ahead of the member's reading it.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What all streams of a connection may send ahead.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What one stream may hold ready for a client that does not read: a thousand stalled watches must not hold hundreds of megabytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Connections not yet accepted that the kernel keeps.
const BACKLOG: u32 = 1_024;
/// After an accept that failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The head of a request of HTTP/1 must be whole by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Binds one client or metrics URL.
pub async fn bind(url: &Url, config: &Config) -> anyhow::Result<Listener> {
    if let Some(file) = url.socket_file() {
        remove_stale_socket(&file)?;
        let listener = UnixListener::bind(&file).with_context(|| format!("listen on {url}"))?;
        return Ok(Listener::Unix(listener, file));
    }
    let (host, port) = (url.host(), url.port().unwrap_or(0));
    let addresses = tokio::net::lookup_host((host, port)).await.with_context(|| format!("look up {host}"))?;
    let mut failure = None;
    for address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if config.socket_reuse_port {
            socket.set_reuseport(true)?;
        }
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(Listener::Tcp(listener)),
            Err(error) => failure = Some(error),
        }
    }
    let failure = failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    Err(failure).with_context(|| format!("listen tcp {host}:{port}"))
}

/// A socket file of a process that is gone would refuse the new one for ever; any other file is not ours to remove.
fn remove_stale_socket(file: &PathBuf) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(file) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(file).with_context(|| format!("remove the old socket {}", file.display()))
        }
        Ok(_) => anyhow::bail!("{} exists and is not a socket", file.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look at {}", file.display())),
    }
}

/// Serves connections until the member stops.
#[derive(Clone)]
pub struct Connections {
    builder: auto::Builder<TokioExecutor>,
    stop: CancellationToken,
    open: TaskTracker,
}

impl Connections {
    /// For clients.
    pub fn new(config: &Config, stop: CancellationToken) -> Self {
        let (interval, timeout) = (config.grpc_keepalive_interval, config.grpc_keepalive_timeout);
        Self::with(interval, timeout, config.max_concurrent_streams, stop)
    }

    /// For other members: one that is silent for an election time-out is gone.
    pub fn for_peers(config: &Config, stop: CancellationToken) -> Self {
        Self::with(config.election_timeout / 2, config.election_timeout / 2, u32::MAX, stop)
    }

    fn with(keepalive: Duration, timeout: Duration, streams_max: u32, stop: CancellationToken) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams_max)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval((!keepalive.is_zero()).then_some(keepalive));
        if !timeout.is_zero() {
            builder.http2().keep_alive_timeout(timeout);
        }
        // Who has asked and says no more is answered all the same, as by etcd: `printf ... | nc` does so.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(true);
        Self { builder, stop, open: TaskTracker::new() }
    }

    /// Accepts connections of `listener` in a task of its own.
    pub fn serve(&self, listener: Listener, router: Router) {
        let connections = self.clone();
        self.open.spawn(async move {
            let stop = connections.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = connections.accept(&listener, router) => {}
            }
            if let Listener::Unix(_, file) = &listener {
                let _ = std::fs::remove_file(file);
            }
        });
    }

    async fn accept(&self, listener: &Listener, router: Router) {
        loop {
            let accepted = match listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((stream, _)) => {
                        // Answers are small and somebody waits for each.
                        let _ = stream.set_nodelay(true);
                        self.connection(stream, router.clone());
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                Listener::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| self.connection(stream, router.clone()))
                }
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
        let (builder, stop) = (self.builder.clone(), self.stop.clone());
        self.open.spawn(async move {
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended in disorder");
            }
        });
    }

    /// Waits until all connections are closed, for as long as `patience` at most.
    pub async fn closed(&self, patience: Duration) {
        self.open.close();
        let _ = tokio::time::timeout(patience, self.open.wait()).await;
    }
}
