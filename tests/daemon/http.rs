//! HTTP over a Unix socket, by hand: so that a test can also say what no honest client would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::service::LIMIT;

/// An answer, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) code: u16,
    /// The status line and the headers.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Goes on with an answer that has this code.
    #[track_caller]
    pub(crate) fn is(self, code: u16) -> Answer {
        assert_eq!(self.code, code, "{}\n{}", self.head, self.text());
        self
    }
}

/// A connection that gives up only when all is lost.
pub(crate) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// The head of a request with these further lines.
pub(crate) fn head(method: &str, path: &str, lines: &[String]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: filed\r\n");
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head
}

/// Asks for something and reads all of the answer.
pub(crate) fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(socket)?;
    let lines = [
        format!("content-length: {}", body.len()),
        "content-type: application/json".to_owned(),
    ];
    // It may answer and go before it has read all of that.
    let _ = stream.write_all(head(method, path, &lines).as_bytes());
    let _ = stream.write_all(body);
    read_answer(stream)
}

/// Reads an answer.
pub(crate) fn read_answer(stream: UnixStream) -> io::Result<Answer> {
    let (code, head, mut reader) = read_head(stream)?;
    let mut body = Vec::new();
    if let Some(length) = header(&head, "content-length") {
        body.resize(length.parse().map_err(io::Error::other)?, 0);
        reader.read_exact(&mut body)?;
    } else if header(&head, "transfer-encoding").is_some() {
        while let Some(chunk) = read_chunk(&mut reader)? {
            body.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Answer { code, head, body })
}

/// Reads the head of an answer; its body is what the reader has next.
pub(crate) fn read_head(stream: UnixStream) -> io::Result<(u16, String, BufReader<UnixStream>)> {
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let mut head = String::new();
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head[start..].trim_end().is_empty() {
            break;
        }
    }
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or(io::ErrorKind::InvalidData)?, head, reader))
}

/// The value of a header.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The next part of a body that comes in chunks; none at its end.
pub(crate) fn read_chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

/// Text as it stands in the query of a path.
pub(crate) fn in_query(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Where the content of a stored file is.
pub(crate) fn content_of(name: &str) -> String {
    format!("/v1/files/content?name={}", in_query(name))
}
