//! How members reach each other: the one place that opens connections, so that a simulation can put a network of its own here.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection, whatever it is made of.
pub trait Wire: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}

pub type Connection = Pin<Box<dyn Wire>>;

/// Opens a connection to `host:port`.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync>);

impl Dial {
    pub fn new(dial: impl Fn(String) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }

    /// The network of this machine.
    pub fn tcp() -> Self {
        Self::new(|address| {
            Box::pin(async move {
                let stream = TcpStream::connect(address).await?;
                // What is said between members is small, and somebody waits for it.
                stream.set_nodelay(true)?;
                Ok(Box::pin(stream) as Connection)
            })
        })
    }

    pub async fn connect(&self, address: &str) -> io::Result<Connection> {
        (self.0)(address.to_owned()).await
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Dial")
    }
}
