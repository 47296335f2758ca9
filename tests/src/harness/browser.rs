//! Headless Chromium, asked over the DevTools protocol on a pipe.
//!
//! Before: a page is served in a namespace. After: a test reads the page, presses keys, and sees what the browser complains of.
//! Holds: the browser's process and one tab. Never: loads anything but what the test names.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    DEADLINE, eventually,
    netns::Namespace,
    process::{Process, bound_to_namespace},
    scratch::Scratch,
};

/// A browser with one tab.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    input: ChildStdin,
    messages: Receiver<Value>,
    next: u64,
    session: String,
    complaints: Vec<String>,
}

impl Browser {
    /// Starts it in a namespace.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, scratch: &Scratch) -> Self {
        let mut command = bound_to_namespace("sh");
        // Its descriptors 3 and 4 are the pipe.
        let line = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                    --disable-background-networking --disable-component-update --remote-debugging-pipe \
                    --user-data-dir=\"$0\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        command.args(["-c", line]).arg(scratch.folder("browser"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start("chromium", namespace, scratch, command);
        let child = process.child();
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (said, messages) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut octets = Vec::new();
            while output.read_until(0, &mut octets).is_ok_and(|count| count > 0) {
                octets.pop();
                if serde_json::from_slice(&octets).is_ok_and(|message| said.send(message).is_err()) {
                    return;
                }
                octets.clear();
            }
        });
        let complaints = Vec::new();
        let mut browser =
            Self { _process: process, input, messages, next: 0, session: String::new(), complaints };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// When it fails, or has no answer in time.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut octets = message.to_string().into_bytes();
        octets.push(0);
        self.input.write_all(&octets).and_then(|()| self.input.flush()).expect("the browser reads");
        loop {
            let message = self.messages.recv_timeout(DEADLINE);
            let message = message.unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == json!(self.next) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let parameters = &message["params"];
        let is_complaint = match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => parameters["type"] == "error" || parameters["type"] == "warning",
            "Log.entryAdded" => parameters["entry"]["level"] == "error",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }

    /// What the browser complained of since the last call.
    pub fn complaints(&mut self) -> Vec<String> {
        self.evaluate("1");
        std::mem::take(&mut self.complaints)
    }

    /// Goes to an address, by a new document.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let outcome = self.call("Runtime.evaluate", parameters);
        assert!(outcome["exceptionDetails"].is_null(), "{expression}: {outcome}");
        outcome["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// When it is not in time; with the page's text.
    pub fn until(&mut self, expression: &str) {
        let guarded = format!("(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()");
        eventually(expression, || (self.evaluate(&guarded) == json!(true)).then_some(()));
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut parameters =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && key == "Enter" {
                parameters["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", parameters);
        }
    }

    /// Types text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// The width of the window, and whether it prefers dark.
    pub fn shape(&mut self, width: u32, height: u32, is_dark: bool) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// A picture of the window, as PNG.
    ///
    /// # Panics
    /// When there is none.
    pub fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        STANDARD.decode(picture["data"].as_str().expect("Base64")).expect("Base64")
    }
}
