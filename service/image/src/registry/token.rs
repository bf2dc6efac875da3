//! Token servers (distribution documentation, "Token Authentication Specification" and "Docker Registry v2
//! authentication using OAuth2").

use super::{
    auth::with_password, challenge::Bearer, endpoint::Endpoint, http::leads_nowhere_else, retry::Failure,
};
use banger_model::Credentials;
use reqwest::{RequestBuilder, StatusCode, Url, header::CONTENT_TYPE};
use serde::Deserialize;

/// A token server's answer may be this long.
const LONGEST: u64 = 1 << 20;
/// How banger calls itself there.
const CLIENT: &str = "banger";

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets a token that allows to pull from the server that a registry names, showing it the registry's credentials.
///
/// # Errors
/// What the server says, and that it is none that may be asked.
pub(super) async fn ask(
    endpoint: &Endpoint,
    bearer: &Bearer,
    credentials: Option<&Credentials>,
) -> Result<String, Failure> {
    let refused = |why: &str| Failure::Final(endpoint.unavailable(format!("its token server {why}")));
    let url = Url::parse(&bearer.realm).map_err(|_| refused("has no valid address"))?;
    // What it answers is sent to the registry: it must not be a service of the host's network. And what it is shown
    // must not be seen on the way.
    let allowed = match url.scheme() {
        "https" => true,
        _ => endpoint.plain_url().is_some_and(|registry| leads_nowhere_else(&registry, &url)),
    };
    if !allowed {
        return Err(refused("does not use TLS"));
    }
    let client = endpoint.client_for(&url, credentials.is_none()).map_err(Failure::Final)?;
    let scope = bearer.scope.clone().unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository()));
    let service = bearer.service.as_ref().map(|service| ("service", service.as_str()));
    let mut fields = vec![("scope", scope.as_str())];
    fields.extend(service);
    let request = match credentials {
        Some(Credentials::Identity { identity_token }) => {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT),
                ("refresh_token", identity_token),
            ]);
            form(client.post(url), &fields)
        }
        Some(Credentials::Password { username, password }) => {
            with_password(client.get(with_query(url, &fields)), username, password)
        }
        Some(Credentials::Registry { .. }) | None => client.get(with_query(url, &fields)),
    };
    let response = request.send().await.map_err(|error| endpoint.unanswered(error))?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(endpoint.denied()),
        // An OAuth2 server's answer to a token that is not, or no longer, one (RFC 6749, section 5.2).
        StatusCode::BAD_REQUEST if credentials.is_some() => return Err(endpoint.denied()),
        status if status.is_redirection() => return Err(refused("redirects what only itself may see")),
        status => return Err(endpoint.status(status, &response)),
    }
    let body = endpoint.bounded(response, "the size of the token server's answer", LONGEST).await?;
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| refused("answers something else than a token"))?;
    let token = answer.token.or(answer.access_token).ok_or_else(|| refused("gives no token"))?;
    let usable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    usable.then_some(token).ok_or_else(|| refused("gives an unusable token"))
}

fn with_query(mut url: Url, fields: &[(&str, &str)]) -> Url {
    url.query_pairs_mut().extend_pairs(fields);
    url
}

/// A body of fields (application/x-www-form-urlencoded), which is written as a query is.
fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = Url::parse("form:").map(|url| with_query(url, fields).query().unwrap_or_default().to_owned());
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.unwrap_or_default())
}
