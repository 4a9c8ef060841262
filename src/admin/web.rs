//! The web page: files that are part of the program, and the headers that keep everything foreign out of it. It asks the
//! rest of management, as any client does: that decides who may see and do what.

use hyper::{
    Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::reply::{self, Refusal, Reply};

/// What the page may do: load these files and ask this server, nothing else. Text never becomes markup or a script, whatever
/// users are called.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file: its path, its type, what is in it.
type File = (&'static str, &'static str, &'static str);

/// Every file. The page names the others relative to itself, so that a proxy can put all of it into a folder.
const FILES: [File; 12] = [
    ("/", "text/html; charset=utf-8", include_str!("web/index.html")),
    ("/web/page.css", "text/css; charset=utf-8", include_str!("web/page.css")),
    ("/web/icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
    ("/web/main.js", SCRIPT, include_str!("web/main.js")),
    ("/web/api.js", SCRIPT, include_str!("web/api.js")),
    ("/web/text.js", SCRIPT, include_str!("web/text.js")),
    ("/web/overview.js", SCRIPT, include_str!("web/overview.js")),
    ("/web/plot.js", SCRIPT, include_str!("web/plot.js")),
    ("/web/sessions.js", SCRIPT, include_str!("web/sessions.js")),
    ("/web/events.js", SCRIPT, include_str!("web/events.js")),
    ("/web/tester.js", SCRIPT, include_str!("web/tester.js")),
    ("/web/ice.js", SCRIPT, include_str!("web/ice.js")),
];

/// The file at a path, if there is one.
pub(super) fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|(at, ..)| *at == path)
}

/// Answers a request for a file.
pub(super) fn answer(method: &Method, (_, kind, content): &'static File) -> Result<Reply, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        let refusal = reply::refused(StatusCode::METHOD_NOT_ALLOWED, "what can be done here: GET");
        return Err(refusal.with(header::ALLOW, "GET"));
    }
    let mut answer = reply::text(kind, (*content).to_owned());
    let fixed: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=(), display-capture=()"),
    ];
    answer.headers_mut().extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_named_is_there() {
        let named = |text: &str, from: &str, before: &str| {
            let parts = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            parts.map(|name| format!("{from}{name}")).collect::<Vec<_>>()
        };
        let mut found = vec!["/".to_owned()];
        for (path, _, content) in FILES {
            match path {
                "/" => found.extend(["src=\"", "href=\""].iter().flat_map(|before| named(content, "/", before))),
                _ => found.extend(named(content, "/web/", "from \"./")),
            }
        }
        found.retain(|path| !path.starts_with("/#"));
        found.sort_unstable();
        found.dedup();
        let mut served: Vec<&str> = FILES.iter().map(|(path, ..)| *path).collect();
        served.sort_unstable();
        assert_eq!(found, served);
    }

    /// The policy would refuse them; better that nobody writes any.
    #[test]
    fn nothing_is_inline_and_nothing_becomes_markup() {
        for (path, _, content) in FILES {
            for word in ["style=\"", "<style", "onclick=", "javascript:", "innerHTML", "insertAdjacentHTML", "eval("] {
                assert!(!content.contains(word), "{path}: {word}");
            }
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        }
    }
}
