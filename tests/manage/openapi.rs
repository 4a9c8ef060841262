//! The description of the interface is true: what the server answers has the shape that is described.

use serde_json::{Value, json};

use crate::common::{Server, loopback_with_tls};
use crate::web::{ask_locally, client, get, managed};

/// Whether a value is as a schema says; an error says where it is not. Knows what this description uses.
fn check(schema: &Value, value: &Value, document: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').expect("a reference into the document");
        let referred = document.pointer(pointer).unwrap_or_else(|| panic!("{name} is not there"));
        return check(referred, value, document, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| check(choice, value, document, at).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{at}: fits {fitting} of {schema}")) };
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => return Err(format!("{at}: no type: {other}")),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    };
    if !kinds.iter().any(is) {
        return Err(format!("{at}: {value} is not {kinds:?}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{at}: {value} is not one of {choices:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, document, &format!("{at}[{index}]"))?;
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(required).is_none() {
            return Err(format!("{at}.{required} is missing"));
        }
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => return Err(format!("{at}.{key} is not described")),
            (Value::Null, Value::Null) => {}
            (Value::Null, others) => check(others, item, document, &format!("{at}.{key}"))?,
            (described, _) => check(described, item, document, &format!("{at}.{key}"))?,
        }
    }
    Ok(())
}

#[test]
fn the_checker_notices_what_is_wrong() {
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "type": "integer" }, "b": { "type": ["string", "null"], "enum": ["x", null] } } });
    let check = |value| check(&schema, &value, &Value::Null, "$");
    assert_eq!(check(json!({ "a": 1, "b": null })), Ok(()));
    for wrong in [json!({}), json!({ "a": "1" }), json!({ "a": 1, "b": "y" }), json!({ "a": 1, "c": 1 }), json!([])] {
        assert!(check(wrong).is_err());
    }
}

#[test]
fn answers_are_as_described() {
    let management = managed("");
    let management = management.split("[management]").nth(1).expect("the table");
    let secret = "realm = \"example.org\"\nstatic-auth-secret = \"the secret of the north\"";
    let listening = loopback_with_tls().replace("realm = \"example.org\"", secret);
    let server = Server::start(&format!("{listening}[management]{management}"));
    let document = get(&server, "/openapi.json");
    let mut client = client(&server);
    client.allocate().expect("an allocation");
    client.permit("127.0.0.1:9".parse().expect("an address")).expect("a permission");
    let id = get(&server, "/v1/sessions")["sessions"][0]["id"].as_str().expect("an id").to_owned();
    let one = format!("/v1/sessions/{id}");
    let gone = "/v1/sessions/0000000000000000";
    for (method, path, target, body) in [
        ("GET", "/live", "/live", ""),
        ("GET", "/ready", "/ready", ""),
        ("GET", "/status", "/status", ""),
        ("GET", "/openapi.json", "/openapi.json", ""),
        ("GET", "/v1/sessions", "/v1/sessions", ""),
        ("GET", "/v1/sessions", "/v1/sessions?limit=x", ""),
        ("GET", "/v1/sessions/{id}", &one, ""),
        ("GET", "/v1/sessions/{id}", gone, ""),
        ("GET", "/v1/users", "/v1/users", ""),
        ("GET", "/v1/credentials", "/v1/credentials", ""),
        ("GET", "/v1/credentials", "/v1/credentials?shape=cloudflare", ""),
        ("GET", "/v1/credentials", "/v1/credentials?ttl=0", ""),
        ("POST", "/v1/credentials", "/v1/credentials", "{\"shape\": \"ice-servers\"}"),
        ("POST", "/v1/credentials", "/v1/credentials", "{}"),
        ("POST", "/v1/credentials", "/v1/credentials", "[]"),
        ("GET", "/v1/configuration", "/v1/configuration", ""),
        ("GET", "/v1/explain", "/v1/explain?of=127.0.0.1", ""),
        ("GET", "/v1/explain", "/v1/explain?of=192.0.2.1", ""),
        ("GET", "/v1/explain", "/v1/explain", ""),
        ("GET", "/v1/log-level", "/v1/log-level", ""),
        ("PUT", "/v1/log-level", "/v1/log-level", "{\"level\": \"info\"}"),
        ("PUT", "/v1/log-level", "/v1/log-level", "{}"),
        ("POST", "/v1/reload", "/v1/reload", ""),
        ("POST", "/v1/drain", "/v1/drain", "{\"stay\": true}"),
        ("GET", "/ready", "/ready", ""),
        ("GET", "/status", "/status", ""),
        ("POST", "/v1/drain", "/v1/drain", "{\"timeout\": 1000}"),
        ("DELETE", "/v1/drain", "/v1/drain", ""),
        ("DELETE", "/v1/sessions/{id}", &one, ""),
        ("DELETE", "/v1/sessions", "/v1/sessions?user=nobody", ""),
        ("DELETE", "/v1/sessions", "/v1/sessions?secret=none", ""),
        ("DELETE", "/v1/sessions", "/v1/sessions", ""),
    ] {
        let answer = ask_locally(&server, method, target, body);
        let operation = &document["paths"][path][method.to_lowercase()];
        let response = &operation["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{method} {target}: {} is not described", answer.status);
        let schema = &response["content"]["application/json"]["schema"];
        assert_eq!(check(schema, &answer.json(), &document, "$"), Ok(()), "{method} {target}");
    }
    std::fs::write(server.folder().join("turnserver.toml"), "nonsense").expect("to write");
    let refused = ask_locally(&server, "POST", "/v1/reload", "");
    let schema = &document["paths"]["/v1/reload"]["post"]["responses"]["422"]["content"]["application/json"]["schema"];
    assert_eq!((refused.status, check(schema, &refused.json(), &document, "$")), (422, Ok(())));
}
