//! An endpoint for operations, in a pod: one that takes them and says so, or one that hangs.

use std::collections::BTreeMap;

use serde_json::json;

use crate::installation::Installation;

/// Pod, container and Service.
const NAME: &str = "receiver";

/// Keeps `CLIENT KEY OPERATION` of each one that it takes; a hanging one answers nothing. Kubernetes may drop what a container says.
const PROGRAM: &str = r#"
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        operation = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if os.environ["HANGS"] == "yes":
            time.sleep(3600)
        with kept:
            print(self.client_address[0], self.headers["Idempotency-Key"], operation, file=taken, flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass

kept = threading.Lock()
taken = open("/taken/operations", "w")
server = ThreadingHTTPServer(("", 8080), Receiver)
server.daemon_threads = True
server.serve_forever()
"#;

/// The endpoint. It goes with its namespace.
#[derive(Debug)]
pub struct Receiver<'a> {
    installed: &'a Installation,
    image: String,
}

impl<'a> Receiver<'a> {
    /// One that hangs; `image` has `python3` on its PATH.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn hanging(installed: &'a Installation, image: &str) -> Self {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": 8080}]},
        });
        installed.apply(&service).unwrap_or_else(|why| panic!("{why}"));
        let receiver = Self {
            installed,
            image: image.to_owned(),
        };
        receiver.start(true);
        receiver
    }

    /// What operations are posted to.
    pub fn url() -> String {
        format!("http://{NAME}:8080/operations")
    }

    /// From now on it takes what it is given.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn repair(&self) {
        self.installed
            .kubectl(&["delete", "pod", NAME, "--wait", "--timeout", "1m"]);
        self.start(false);
    }

    /// What it took, in order, by who gave it: pairs of key and operation.
    pub fn taken(&self) -> Result<BTreeMap<String, Vec<(String, String)>>, String> {
        let read = ["exec", NAME, "--", "cat", "/taken/operations"];
        let said = self.installed.try_kubectl(&read)?;
        let mut taken: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for line in said.lines() {
            let mut words = line.splitn(3, ' ');
            if let (Some(client), Some(key), Some(operation)) = (words.next(), words.next(), words.next()) {
                let of_client = taken.entry(client.to_owned()).or_default();
                of_client.push((key.to_owned(), operation.to_owned()));
            }
        }
        Ok(taken)
    }

    fn start(&self, hangs: bool) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": NAME, "labels": {"app": NAME}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65_532, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": NAME,
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-u", "-c", PROGRAM],
                    "env": [{"name": "HANGS", "value": if hangs { "yes" } else { "no" }}],
                    "volumeMounts": [{"name": "taken", "mountPath": "/taken"}],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
                    },
                }],
                "volumes": [{"name": "taken", "emptyDir": {"sizeLimit": "8Mi"}}],
            },
        });
        self.installed.apply(&pod).unwrap_or_else(|why| panic!("{why}"));
        self.installed
            .kubectl(&["wait", "pod/receiver", "--for=condition=Ready", "--timeout=2m"]);
    }
}
