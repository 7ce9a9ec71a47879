//! Bytes out of a response.

use bytes::Bytes;

use super::request::{BadRequest, Method};

/// Statuses that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Timeout,
    BodyTooLarge,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::Timeout => "408 Request Timeout",
            Status::BodyTooLarge => "413 Content Too Large",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// What a response carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Text(String),
    Metrics(String),
}

/// An answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: Status,
    body: Body,
    /// To HEAD: only the head.
    head_only: bool,
}

impl Response {
    pub(super) fn new(status: Status, body: Body) -> Response {
        Response { status, body, head_only: false }
    }

    /// The answer to a request that isn't served.
    pub(super) fn refusal(bad: BadRequest) -> Response {
        let (status, text) = match bad {
            BadRequest::Malformed => (Status::BadRequest, "this is no HTTP/1 request\n"),
            BadRequest::Method => (Status::MethodNotAllowed, "only GET and HEAD\n"),
            BadRequest::TooLong => (Status::HeadTooLarge, "too many or too long headers\n"),
            BadRequest::Body => (Status::BodyTooLarge, "no request has a body here\n"),
            BadRequest::Slow => (Status::Timeout, "the request took too long\n"),
        };
        Response::new(status, Body::Text(text.to_owned()))
    }

    pub(super) fn for_method(self, method: Method) -> Response {
        Response { head_only: method == Method::Head, ..self }
    }

    /// Head and body as they are sent.
    pub(super) fn into_parts(self, keep_alive: bool) -> Vec<Bytes> {
        let (content_type, body) = match self.body {
            Body::Text(text) => ("text/plain; charset=utf-8", text),
            Body::Metrics(text) => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        };
        let allow = if self.status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             {allow}Connection: {connection}\r\n\r\n",
            self.status.line(),
            body.len(),
        );
        let mut parts = vec![Bytes::from(head)];
        if !self.head_only {
            parts.push(Bytes::from(body));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: Response, keep_alive: bool) -> String {
        let bytes = response.into_parts(keep_alive).concat();
        String::from_utf8(bytes).expect("responses are text")
    }

    #[test]
    fn head_has_the_length_of_a_body_that_is_not_sent() {
        let response = Response::new(Status::Ok, Body::Text("ok\n".to_owned()));
        let get = text(response.clone().for_method(Method::Get), true);
        let head = text(response.for_method(Method::Head), true);
        assert_eq!(get, format!("{head}ok\n"));
        assert!(head.contains("Content-Length: 3\r\n") && head.contains("Connection: keep-alive\r\n"));
    }

    #[test]
    fn a_refusal_closes_and_says_which_methods_there_are() {
        let refused = text(Response::refusal(BadRequest::Method), false);
        assert!(refused.starts_with("HTTP/1.1 405 "));
        assert!(refused.contains("Allow: GET, HEAD\r\n") && refused.contains("Connection: close\r\n"));
    }
}
