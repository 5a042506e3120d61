//! A message above the limit, as etcd answers it: the transport below says the same with another code and text.

use axum::response::Response;
use http::HeaderValue;
use tonic::Code;

use crate::rpc::oversize;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

pub(super) async fn as_etcd_says_it(mut response: Response) -> Response {
    let headers = response.headers();
    let Some(status) = headers.get(STATUS) else { return response };
    if status.to_str().ok().and_then(|code| code.parse::<i32>().ok()) != Some(Code::OutOfRange as i32) {
        return response;
    }
    let Some(message) = headers.get(MESSAGE).and_then(|message| message.to_str().ok()) else { return response };
    // The escapes of the header.
    let plain = message.replace("%20", " ").replace("%2C", ",").replace("%3A", ":");
    let Some(text) = oversize(&plain) else { return response };
    if let Ok(text) = HeaderValue::try_from(text) {
        response.headers_mut().insert(STATUS, HeaderValue::from(Code::ResourceExhausted as i32));
        response.headers_mut().insert(MESSAGE, text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tonics_words_become_etcds() {
        let status = tonic::Status::out_of_range(
            "Error, decoded message length too large: found 4194309 bytes, the limit is: 2097152 bytes",
        );
        let response = as_etcd_says_it(status.into_http()).await;
        assert_eq!(response.headers()[STATUS], "8");
        assert_eq!(response.headers()[MESSAGE], "grpc: received message larger than max (4194309 vs. 2097152)");
    }

    #[tokio::test]
    async fn other_answers_pass_untouched() {
        let status = tonic::Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        let response = as_etcd_says_it(status.into_http()).await;
        assert_eq!(response.headers()[STATUS], "11");
    }
}
