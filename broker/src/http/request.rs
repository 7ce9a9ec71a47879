//! A request out of bytes.

/// The longest request line with its headers.
pub(super) const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// A method that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
}

/// What of a request matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Without the query.
    pub(super) path: String,
    /// Whether the peer will ask more over the same connection.
    pub(super) keep_alive: bool,
}

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// All is there, in so many bytes.
    Whole(Request, usize),
    /// More has to come.
    Partial,
}

/// A request that isn't served. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// It is no HTTP.
    Malformed,
    /// Neither GET nor HEAD.
    Method,
    /// Longer than [`HEAD_BYTES_MAX`], or with too many headers.
    TooLong,
    /// It has a body.
    Body,
    /// It began and did not end in time.
    Slow,
}

/// The request at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => {
            Ok(Parsed::Whole(interpret(&parsed)?, length))
        }
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(Parsed::Partial),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(BadRequest::TooLong),
        Err(_) => Err(BadRequest::Malformed),
    }
}

fn interpret(parsed: &httparse::Request<'_, '_>) -> Result<Request, BadRequest> {
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadRequest::Malformed);
    };
    let mut keep_alive = version == 1;
    for header in &*parsed.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let value = header.value.trim_ascii();
        if is("transfer-encoding") || (is("content-length") && value != b"0") {
            return Err(BadRequest::Body);
        }
        if is("connection") {
            let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            keep_alive = if version == 1 {
                keep_alive && !options.any(|option| option.eq_ignore_ascii_case(b"close"))
            } else {
                options.any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
            };
        }
    }
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        _ => return Err(BadRequest::Method),
    };
    let path = target.split_once('?').map_or(target, |(path, _)| path).to_owned();
    Ok(Request { method, path, keep_alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Ok(Parsed::Whole(request, length)) => {
                assert_eq!(length, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_whole_at_its_empty_line_and_not_before() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n";
        let expected = Request { method: Method::Get, path: "/metrics".to_owned(), keep_alive: true };
        assert_eq!(whole(text), expected);
        for length in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..length]), Ok(Parsed::Partial), "{length}");
        }
        let two = format!("{text}{text}");
        assert_eq!(parse(two.as_bytes()), Ok(Parsed::Whole(expected, text.len())));
    }

    #[test]
    fn connections_are_kept_as_version_and_header_say() {
        let table = [
            ("HTTP/1.1\r\n", true),
            ("HTTP/1.1\r\nConnection: close\r\n", false),
            ("HTTP/1.1\r\nconnection: TE, Close\r\n", false),
            ("HTTP/1.0\r\n", false),
            ("HTTP/1.0\r\nConnection: keep-alive\r\n", true),
        ];
        for (rest, keep_alive) in table {
            assert_eq!(whole(&format!("HEAD / {rest}\r\n")).keep_alive, keep_alive, "{rest}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_for_its_reason() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        let table = [
            ("POST / HTTP/1.1\r\n\r\n", BadRequest::Method),
            ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", BadRequest::Body),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest::Body),
            ("GET / HTTP/2.0\r\n\r\n", BadRequest::Malformed),
            ("\0\0\0\u{12}\0\u{3}", BadRequest::Malformed),
            (&long, BadRequest::TooLong),
            (&long[..HEAD_BYTES_MAX + 1], BadRequest::TooLong),
            (&many, BadRequest::TooLong),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), Err(expected), "{text:.40?}");
        }
    }
}
