//! The dashboard and the alerts, by Prometheus itself, which scrapes a running server: every query is understood, and is about
//! metrics and labels that are there.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Instant,
};

use serde_json::Value;

use crate::client::Client;
use crate::common::{
    PASSWORD, PATIENCE, Server, USER, loopback_with_tls,
    ports::peer_listener,
    process::{Process, run},
};
use crate::{ours, tool};

const RULES: &str = "deploy/prometheus/turnserver.rules.yml";
const CASES: &str = "deploy/prometheus/turnserver.test.yml";
const DASHBOARD: &str = "deploy/grafana/turnserver.json";

fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(ours("deploy/prometheus"));
    run(command, PATIENCE * 3)
}

fn yaml(path: &str) -> Value {
    let mut command = tool("python3");
    command
        .args(["-c", "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"])
        .arg(ours(path));
    serde_json::from_str(&run(command, PATIENCE)).expect("JSON")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}")).iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The alerts with their queries.
fn alerts() -> Vec<(String, String)> {
    let rules = yaml(RULES);
    let rules = list(&rules["groups"]).flat_map(|group| list(&group["rules"]));
    rules.map(|rule| (text(&rule["alert"]).to_owned(), text(&rule["expr"]).to_owned())).collect()
}

/// Every query of the dashboard, with what Grafana puts in the place of its variables.
fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(query) if name == "expr" => found.push(query.clone()),
                value => collect(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(ours(DASHBOARD)).expect("the dashboard")).expect("JSON");
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    let filled = |query: String| query.replace("$__rate_interval", "1m").replace("$instance", ".*");
    let queries: Vec<String> = found.into_iter().map(filled).collect();
    assert!(queries.iter().all(|query| !query.contains('$')), "a variable that is not known: {queries:#?}");
    queries
}

#[test]
fn promtool_accepts_the_alerts_and_each_is_tested_both_ways() {
    promtool(&["check", "rules", "turnserver.rules.yml"]);
    promtool(&["test", "rules", "turnserver.test.yml"]);
    let cases = yaml(CASES);
    let cases: BTreeSet<(String, bool)> = list(&cases["tests"])
        .flat_map(|test| list(&test["alert_rule_test"]))
        .map(|case| (text(&case["alertname"]).to_owned(), list(&case["exp_alerts"]).next().is_some()))
        .collect();
    for (alert, _) in alerts() {
        for fires in [true, false] {
            assert!(cases.contains(&(alert.clone(), fires)), "{alert}: no case where it is {fires} that it fires");
        }
    }
}

#[test]
fn promtool_refuses_an_alert_that_does_not_fire_as_its_case_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = fs::read_to_string(ours(RULES)).expect("the rules");
    assert!(rules.contains("> 0.8\n"));
    fs::write(folder.path().join("turnserver.rules.yml"), rules.replace("> 0.8\n", "> 0.9\n")).expect("to write");
    fs::copy(ours(CASES), folder.path().join("turnserver.test.yml")).expect("to copy");
    let mut command = Command::new("promtool");
    command.args(["test", "rules", "turnserver.test.yml"]).current_dir(folder.path());
    let output = command.output().expect("promtool");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("RelayPortsRunOut"),
        "{output:?}"
    );
}

/// The dashboard is one that Grafana can import: panels that do not overlap, each with a query and a name of its own.
#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(ours(DASHBOARD)).expect("the dashboard")).expect("JSON");
    let (mut ids, mut titles, mut places) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().expect("a number")) && titles.insert(title.to_owned()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(cell), "{title} stands on another panel");
        }
        if panel["type"] != "row" {
            assert!(list(&panel["targets"]).all(|target| target["datasource"]["uid"] == "${datasource}"), "{title}");
        }
    }
    let variables: Vec<&str> = list(&dashboard["templating"]["list"]).map(|variable| text(&variable["name"])).collect();
    assert_eq!(variables, ["datasource", "instance"]);
}

/// Prometheus with our rules, scraping one server.
struct Prometheus {
    process: Process,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = peer_listener(Ipv4Addr::LOCALHOST.into()).local_addr().expect("an address");
        let configuration = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [{}]\nscrape_configs:\n- job_name: \
             turnserver\n  static_configs: [{{targets: ['{target}']}}]\n",
            ours(RULES).display()
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration).expect("to write");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={at}"));
        let process = Process::start(command);
        process.find_line(PATIENCE * 3, |line| line.contains("Server is ready to receive web requests").then_some(()));
        Self { process, at, _folder: folder }
    }

    /// What a query comes to now.
    fn ask(&self, query: &str) -> Vec<Value> {
        let answer = promtool(&["query", "instant", "--format=json", &format!("http://{}", self.at), query]);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{query}: {error}: {answer}"))
    }

    /// Waits until a query comes to something.
    fn await_answer(&self, query: &str) {
        let deadline = Instant::now() + PATIENCE * 3;
        while self.ask(query).is_empty() {
            assert!(Instant::now() < deadline, "{query} comes to nothing:\n{}", self.process.output());
        }
    }

    /// The state of each rule, as /api/v1/rules has it.
    fn rules(&self) -> Value {
        let mut stream = TcpStream::connect(self.at).expect("Prometheus");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        write!(stream, "GET /api/v1/rules HTTP/1.0\r\n\r\n").expect("to send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

/// The selectors of a query, like `turn_ready` or `turn_errors_total{code="508"}`.
fn selectors(query: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut rest) = (BTreeSet::new(), query);
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, mut after) = rest.split_at(end);
        let mut selector = name.to_owned();
        if after.starts_with('{') {
            let close = after.find('}').unwrap_or_else(|| panic!("{query}")) + 1;
            selector.push_str(&after[..close]);
            after = &after[close..];
        }
        if name == "up" || ["turn_", "turnserver_", "process_"].iter().any(|prefix| name.starts_with(prefix)) {
            found.insert(selector);
        }
        rest = after;
    }
    found
}

#[test]
fn selectors_are_found() {
    let query = "sum by (job, turn_x) (rate(turn_a_total{code=~\"4|5\"}[5m])) / on (instance) up == 0";
    let expected = ["turn_a_total{code=~\"4|5\"}", "turn_x", "up"].map(ToOwned::to_owned);
    assert_eq!(selectors(query), expected.into_iter().collect());
}

#[test]
fn every_query_is_about_what_a_running_server_tells() {
    let server =
        Server::start(&format!("{}[management]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\n", loopback_with_tls()));
    let management = server.await_logged("management")["address"].clone();
    let mut client = Client::new("udp", server.ipv4("udp"), Some((USER, PASSWORD)));
    client.allocate().expect("an allocation");
    let prometheus = Prometheus::start(text(&management));
    // Rates need two scrapes.
    prometheus.await_answer("rate(turn_allocations_total[1m])");

    let queries = queries();
    assert!(queries.len() > 30, "{queries:#?}");
    let annotation = "changes(process_start_time_seconds";
    for query in queries.iter().filter(|query| !query.contains(annotation)) {
        assert!(!prometheus.ask(query).is_empty(), "{query} comes to nothing");
    }
    let sessions: f64 = text(&prometheus.ask("sum(turn_allocations_active)")[0]["value"][1]).parse().expect("a number");
    assert_eq!(sessions, 1.0, "it is this server's");
    let alerts = alerts();
    for query in alerts.iter().map(|(_, query)| query).chain(queries.iter().filter(|query| query.contains(annotation)))
    {
        let selectors = selectors(query);
        assert!(!selectors.is_empty(), "{query}");
        for selector in selectors {
            assert!(!prometheus.ask(&selector).is_empty(), "{query}: there is no {selector}");
        }
    }

    // All of them are evaluated, and nothing is wrong with a server that has just been started.
    let deadline = Instant::now() + PATIENCE;
    let rules = loop {
        let rules = prometheus.rules();
        let rules: Vec<Value> =
            list(&rules["data"]["groups"]).flat_map(|group| list(&group["rules"])).cloned().collect();
        if rules.iter().all(|rule| rule["health"] != "unknown") {
            break rules;
        }
        assert!(Instant::now() < deadline, "{rules:#?}");
    };
    assert_eq!(rules.len(), alerts.len());
    for rule in &rules {
        assert!(rule["health"] == "ok" && rule["state"] == "inactive", "{rule:#}");
    }
}

#[test]
fn what_is_queried_is_documented() {
    let documented = fs::read_to_string(ours("docs/metrics.md")).expect("docs/metrics.md");
    for query in queries().iter().chain(alerts().iter().map(|(_, query)| query)) {
        for selector in selectors(query).iter().filter(|selector| !selector.starts_with("up")) {
            let name = selector.split('{').next().unwrap_or(selector);
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
        }
    }
}
