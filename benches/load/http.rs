//! Just enough HTTP for a Unix socket: one request, one answer.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer whose body has not been read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    length: Option<u64>,
    chunked: bool,
    stream: BufReader<UnixStream>,
}

/// Sends a request; `body` writes what follows the head.
pub(crate) fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    length: u64,
    body: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> Result<Answer, Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: filed\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    // A service that says no does not read on.
    let _ = body(&mut stream).and_then(|()| stream.flush());
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("no answer to {method} {path}: {line:?}"))?;
    let mut answer = Answer {
        status,
        length: None,
        chunked: false,
        stream,
    };
    loop {
        line.clear();
        answer.stream.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Ok(answer);
        }
        if let Some(length) = header.strip_prefix("content-length: ") {
            answer.length = Some(length.parse()?);
        }
        answer.chunked |= header == "transfer-encoding: chunked";
    }
}

/// What takes the parts of a body.
pub(crate) type Take<'a> = dyn FnMut(&[u8]) -> Result<(), Box<dyn Error>> + 'a;

impl Answer {
    /// Reads the body in parts.
    pub(crate) fn read(mut self, take: &mut Take<'_>) -> Result<(), Box<dyn Error>> {
        let mut room = vec![0; 64 << 10];
        loop {
            let mut left = if self.chunked {
                let mut line = String::new();
                self.stream.read_line(&mut line)?;
                u64::from_str_radix(line.trim(), 16)?
            } else {
                self.length.take().unwrap_or(0)
            };
            if left == 0 {
                return Ok(());
            }
            while left > 0 {
                let most = room.len().min(usize::try_from(left)?);
                let read = self.stream.read(&mut room[..most])?;
                if read == 0 {
                    return Err("the answer was broken off".into());
                }
                take(&room[..read])?;
                left -= read as u64;
            }
            if self.chunked {
                self.stream.read_line(&mut String::new())?;
            }
        }
    }

    /// Reads the body whole.
    pub(crate) fn text(self) -> Result<String, Box<dyn Error>> {
        let mut bytes = Vec::new();
        self.read(&mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(String::from_utf8(bytes)?)
    }
}
