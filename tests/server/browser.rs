//! A headless Chromium, driven by WebDriver through chromedriver, as the standard of that name has it.

use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::simulate::http::{Answer, Client};
use crate::support::until;

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

pub(super) const ENTER: &str = "\u{e007}";
pub(super) const TAB: &str = "\u{e004}";

/// For scripts: `part` is that part of the card of the pipeline `counter`.
pub(super) fn part_of(title: &str) -> String {
    format!(
        "const part = [...document.querySelectorAll('section[aria-labelledby=pipeline-counter] details')] \
           .find(one => one.querySelector('h3').textContent === '{title}');"
    )
}

/// A window. Ends with what was started for it.
pub(super) struct Browser {
    driver: String,
    session: String,
    group: u32,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(super) async fn open() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ends with it whatever it started.
            .process_group(0)
            .spawn();
        let mut driver = started.expect("chromedriver, which scripts/setup.sh installs, can be started");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver says where it listens");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // It goes on to write there.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut browser = Browser {
            driver: format!("http://127.0.0.1:{port}"),
            session: String::new(),
            group: driver.id().unwrap(),
            _profile: profile,
        };
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.send("POST", "/session", &wanted).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let mut client = Client::connect(&self.driver).await;
        let head = format!("{method} {}{path} HTTP/1.1\r\nHost: localhost\r\n", self.session);
        let length = body.len();
        client
            .send(
                format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                    .as_bytes(),
            )
            .await;
        let Answer { status, body, .. } = client.answer().await.expect("an answer of chromedriver's");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, &body).await
    }

    pub(super) async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// What a script returns in the page.
    pub(super) async fn ask(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    pub(super) async fn until(&self, what: &str, script: &str) {
        until(what, async || self.ask(script).await == true).await;
    }

    /// Clicks on what opens a part of the card.
    pub(super) async fn click_part(&self, part: &str) {
        let found = self.ask(&format!("{} return part.querySelector('summary')", part_of(part))).await;
        let id = found[ELEMENT].as_str().unwrap();
        self.post(&format!("/element/{id}/click"), json!({})).await;
    }

    pub(super) async fn press(&self, key: &str) {
        let strokes = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}))
            .await;
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    pub(super) async fn size(&self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// `light` or `dark`.
    pub(super) async fn colours(&self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// The whole page, as `target/screenshots/NAME.png`.
    pub(super) async fn shoot(&self, name: &str) {
        let whole = json!({"format": "png", "captureBeyondViewport": true, "fromSurface": true});
        let shot = self.devtools("Page.captureScreenshot", whole).await;
        let png = BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// What the browser complained of since the last time.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.group);
        let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
    }
}
