//! What a member's `/metrics` says, as `quoratectl tune` reads it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use quorate_tuning::Figures;

use super::Member;

impl Member {
    /// Its metrics in Prometheus text.
    pub fn metrics(&self) -> Result<String> {
        let mut connection = TcpStream::connect(self.endpoint()).context("connect for the metrics")?;
        let ask = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.endpoint());
        connection.write_all(ask.as_bytes()).context("ask for the metrics")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).context("read the metrics")?;
        let (head, page) = answer.split_once("\r\n\r\n").context("find the metrics in the answer")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "the metrics are refused: {head}");
        Ok(page.to_owned())
    }

    pub fn figures(&self) -> Result<Figures> {
        Ok(Figures::read(&self.endpoint(), &self.metrics()?))
    }
}
