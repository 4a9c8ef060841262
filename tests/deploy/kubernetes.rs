//! The manifests: valid by the schemas of Kubernetes, and what they configure is started in the container's root as they say.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::common::{
    PATIENCE,
    process::{Process, run},
};
use crate::container::{in_image, instruction, lay_out, protect};
use crate::inside::{command, credentials, inside, serves};
use crate::{ours, tool};

const FILE: &str = "deploy/kubernetes/turnserver.yaml";
/// From the oldest that is still found to the newest that there is a schema of.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

/// The documents of a file, once the schemas have accepted them.
fn documents(file: &Path) -> Vec<Value> {
    let mut command = tool("python3");
    command.arg(ours("tests/deploy/manifests.py")).arg(file).args(VERSIONS);
    serde_json::from_str(&run(command, PATIENCE * 3)).expect("JSON")
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> &'d Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_schemas_accept_them_and_they_fit_together() {
    let documents = documents(&ours(FILE));
    let (set, secret, map) =
        (of_kind(&documents, "DaemonSet"), of_kind(&documents, "Secret"), of_kind(&documents, "ConfigMap"));
    let template = &set["spec"]["template"];
    let (labels, pod) = (&template["metadata"]["labels"], &template["spec"]);
    assert_eq!(set["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(of_kind(&documents, "Service")["spec"]["selector"], *labels);
    let volume = |kind: &str| pod["volumes"].as_array().expect("volumes").iter().find(|volume| !volume[kind].is_null());
    assert_eq!(volume("configMap").expect("a volume")["configMap"]["name"], map["metadata"]["name"]);
    assert_eq!(volume("secret").expect("a volume")["secret"]["secretName"], secret["metadata"]["name"]);
    // Sessions must have their time: the server's deadline comes before that of Kubernetes.
    let configuration: toml::Table = map["data"]["turnserver.toml"].as_str().expect("a file").parse().expect("TOML");
    let drain = turnserver::config::parse_period(configuration["process"]["drain-timeout"].as_str().expect("a time"));
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().expect("seconds"));
    assert!(grace > drain.expect("a time"), "{grace:?}");
}

#[test]
fn a_manifest_with_a_mistake_is_not_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    for (right, wrong, named) in [
        ("hostNetwork: true", "hostNetworks: true", "hostNetworks"),
        ("periodSeconds: 10", "periodSeconds: ten", "'ten'"),
    ] {
        let text = fs::read_to_string(ours(FILE)).expect("the manifests");
        assert!(text.contains(right), "{right}");
        let file = folder.path().join("wrong.yaml");
        fs::write(&file, text.replace(right, wrong)).expect("to write");
        let mut command = tool("python3");
        command.arg(ours("tests/deploy/manifests.py")).arg(&file).args(VERSIONS);
        let refused = command.output().expect("python3");
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && message.contains(named), "{message}");
    }
}

#[test]
fn what_they_configure_serves_and_answers_the_probes() {
    inside("kubernetes::what_they_configure_serves_and_answers_the_probes", || {
        let documents = documents(&ours(FILE));
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        lay_out(&root);
        let write = |files: &Value, path: &Path| {
            fs::create_dir_all(path).expect("a folder");
            for (name, content) in files.as_object().expect("files") {
                fs::write(path.join(name), content.as_str().expect("a text")).expect("to write");
                // As the kubelet makes them for the group of the pod (fsGroup).
                run(command(&format!("chgrp 65532 {}", path.join(name).display())), PATIENCE);
                run(command(&format!("chmod 0440 {}", path.join(name).display())), PATIENCE);
            }
        };
        let pod = &of_kind(&documents, "DaemonSet")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mounted = |name: &str| {
            let mounts = container["volumeMounts"].as_array().expect("mounts");
            let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap_or_else(|| panic!("no {name}"));
            root.join(mount["mountPath"].as_str().expect("a path").trim_start_matches('/'))
        };
        write(&of_kind(&documents, "ConfigMap")["data"], &mounted("configuration"));
        write(&of_kind(&documents, "Secret")["stringData"], &mounted("secrets"));
        assert_eq!(mounted("run"), root.join("run/turnserver"));
        protect(&root);

        let arguments = container["args"].as_array().expect("arguments").iter().map(|it| it.as_str().expect("a text"));
        let arguments = || instruction("ENTRYPOINT").into_iter().chain(arguments.clone().map(ToOwned::to_owned));
        let mut server = Process::start(in_image(&root, &arguments().collect::<Vec<_>>()));
        server.find_line(PATIENCE, |line| line.contains(r#""message":"ready""#).then_some(()));
        let mint: Vec<String> = arguments().chain(["credentials", "--json"].map(ToOwned::to_owned)).collect();
        serves(&credentials(&run(in_image(&root, &mint), PATIENCE)));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
            assert_eq!(get(path, ""), 200, "{probe}");
        }
        let token = of_kind(&documents, "Secret")["stringData"]["management-token"].as_str().expect("a token");
        assert_eq!((get("/metrics", ""), get("/metrics", token)), (401, 200), "only with the token");
        server.signal("INT");
        assert!(server.wait(PATIENCE).is_some_and(|status| status.success()), "{}", server.output());
    });
}

/// The status of an answer of management.
fn get(path: &str, token: &str) -> u16 {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9641)).expect("management");
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n")
        .expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}
