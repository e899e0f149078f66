//! The status page in a browser: what it shows, how it is used, and what it does when things go wrong.

use super::browser::{Browser, ENTER, TAB, part_of};
use debshrew::simulate::{Command, Fault, Misbehaviour};

use super::{HALTED, Served, TOKEN, end, ends_well, pipeline};
use crate::support::DEADLINE;

const LIVE: &str = "return document.getElementById('link').dataset.on === 'yes'";

/// A card of the pipeline `counter`, as `card`, for scripts.
const CARD: &str =
    "const card = document.getElementById('pipeline-counter')?.closest('section'); if (!card) return false; ";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_happens_as_it_happens() {
    let served = Served::new("server_page", "", 40).await.with_broken().with_sink();
    let running = served.start().await;
    served.scene.caught_up().await;
    for depth in [1, 3] {
        served.scene.reorganise(depth, depth + 2).await;
        served.scene.settled().await;
        served.scene.caught_up().await;
    }
    served
        .until_status("all of it is known", |status| {
            pipeline(status, "counter")["reorgs"].as_array().is_some_and(|all| all.len() == 2)
                && pipeline(status, "broken")["state"] == "halted"
                && status["database"]["pipelines"][1]["tables"][0]["bytes"].is_number()
        })
        .await;
    let browser = Browser::open().await;
    browser.size(1280, 900, false).await;
    browser.colours("light").await;
    browser.go(&format!("http://{}/", served.address)).await;
    browser.until("it is live", LIVE).await;

    let tip = served.scene.source.chain().len() - 1;
    let height =
        |height: usize| format!("{CARD}return card.querySelector('.big').textContent === '{height}'");
    browser.until("the height is shown", &height(tip)).await;
    let at_tip = format!("{CARD}return card.querySelector('.badge').textContent === '● At the tip'");
    browser.until("it is at the tip", &at_tip).await;
    assert_eq!(browser.ask("return document.title").await, "■ 1 of 2 halted · debshrew");
    served.scene.mine(2).await;
    browser.until("the height is a new one", &height(tip + 2)).await;

    // What a transform says is text, whatever it looks like.
    let reason = "return document.querySelector('.trouble[data-tone=bad]').textContent";
    let reason = browser.ask(reason).await;
    assert!(
        reason.as_str().unwrap().contains("<img src=x onerror=document.title=1>\\u202e refuse"),
        "{reason}"
    );
    assert_eq!(browser.ask("return document.images.length").await, 0);

    clicks_through(&browser).await;
    judged_by_structure(&browser).await;
    browser.shoot("light").await;
    browser.colours("dark").await;
    browser.shoot("dark").await;
    browser.size(390, 844, true).await;
    browser.shoot("phone-dark").await;
    browser.colours("light").await;
    let width = browser.ask("return document.documentElement.scrollWidth").await;
    assert_eq!(width, 390, "nothing is wider than a phone");
    browser.shoot("phone").await;

    browser.size(1280, 900, false).await;
    let fault = Fault::Status { code: 503 };
    let misbehave = Misbehaviour { fault, calls: None, method: None, view: None };
    served.scene.source.control(Command::Misbehave(misbehave)).await.unwrap();
    let waits = format!("{CARD}return card.querySelector('.badge').textContent === '▲ Waiting'");
    browser.until("it waits", &waits).await;
    let trouble = browser.ask(&format!("{CARD}return card.querySelector('.trouble').textContent")).await;
    assert!(trouble.as_str().unwrap().contains("answered HTTP 503"), "{trouble}");
    assert!(trouble.as_str().unwrap().contains("goes on by itself"), "{trouble}");
    assert_eq!(browser.ask("return document.title").await, "■ 1 of 2 halted, 1 waiting · debshrew");
    let said = browser.ask("return document.getElementById('say').textContent").await;
    assert_eq!(said, "Pipeline counter: Waiting", "what a screen reader is told");
    browser.shoot("trouble").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    assert_eq!(end(running).await, HALTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_hour_of_catching_up() {
    let served = Served::new("server_hour", "", 4).await;
    let running = served.start().await;
    served.scene.caught_up().await;
    served.until_status("it is at the tip", |status| status["ready"] == true).await;
    let browser = Browser::open().await;
    browser.size(1280, 900, false).await;
    browser.colours("light").await;
    browser.go(&format!("http://{}/", served.address)).await;
    browser.until("it is live", LIVE).await;
    // What it would be told by a process that has run for long.
    browser.ask(HOUR).await;
    let shown = format!("{CARD}return card.innerText");
    let shown = browser.ask(&shown).await;
    for words in [
        "▶ Catching up",
        "612,345",
        "of 840,000, 72.9 %",
        "227,655 blocks",
        "46 min",
        "81",
        "1,240",
        "1.3 GB, journals 52.4 MB",
    ] {
        assert!(shown.as_str().unwrap().contains(words), "{words}: {shown}");
    }
    let label = format!("{CARD}return card.querySelector('svg').getAttribute('aria-label')");
    assert_eq!(browser.ask(&label).await, "Blocks a second over the last hour: now 81, at most 96");
    browser.shoot("busy").await;
    browser.size(390, 844, true).await;
    browser.colours("dark").await;
    browser.shoot("busy-phone").await;
    // No block of those that are to be confirmed first is missed.
    let confirmed = "const status = structuredClone(last);
        Object.assign(status.pipelines[0], { lag_blocks: 6, confirmations: 6, lag_seconds: 0, seconds_left: null });
        show(status); return document.querySelector('.badge').textContent";
    assert_eq!(browser.ask(confirmed).await, "● All at the tip");
    ends_well(running).await;
}

const HOUR: &str = "
    source.close();
    const status = structuredClone(last), p = status.pipelines[0], now = status.now;
    status.started_at = now - 90000;
    Object.assign(p, { height: 612345, source_height: 840000, lag_blocks: 227655, lag_seconds: 86000, seconds_left: 2810,
        blocks_per_second: 81.2, changes_per_second: 1240, since: now - 7230 });
    p.minutes = [...Array(60).keys()].map(i => { const blocks = Math.round(60 * (70 + 26 * Math.sin(i / 6 + 1.2)));
        return { blocks: i === 41 || i === 42 ? 0 : blocks, changes: i === 41 || i === 42 ? 0 : blocks * (12 + i % 5) }; });
    p.blocks = [...Array(50).keys()].map(i => ({ height: 612345 - i, hash: '0'.repeat(16) + (0x9e3779b97f4a * (i + 1)).toString(16).padEnd(48, 'c3').slice(0, 48),
        changes: 900 + i * 37 % 500, committed_at: now - i / 81 }));
    p.reorgs = [[612001, 612000, 1, 812, 2.1], [590100, 590097, 3, 4120, 400]].map(([from_height, to_height, depth, rows, hours]) =>
        ({ from_height, to_height, depth, rows, seconds: depth * 0.031, at: now - hours * 3600 }));
    p.problems = [{ state: 'waiting', reason: 'metashrew_height: cannot reach http://10.0.0.7:8080: connection refused', height: null,
        since: now - 1130, until: now - 1020, times: 2 }];
    Object.assign(status.database.pipelines[0], {
        rollback_floor: 611345,
        standbys: [{ pid: 4711, role: 'debshrew', application: 'debshrew', address: '10.0.0.12', since: now - 86000 }],
        tables: [{ name: 'balances', bytes: 1.1e9, rows: 8123456 }, { name: 'blocks', bytes: 1.6e8, rows: 612345 }],
        journals: [{ name: 'balances', bytes: 5.24e7, rows: 240000 }] });
    show(status);
    for (const part of document.querySelectorAll('details')) part.open = true;";

/// Opens and closes the parts with the mouse and with the keyboard.
async fn clicks_through(browser: &Browser) {
    let open = |part: &str| format!("{} return part.open", part_of(part));
    for part in ["Sinks", "Tables and journals", "Processes", "Speed by minute"] {
        assert_eq!(browser.ask(&open(part)).await, false, "{part}");
        browser.click_part(part).await;
        assert_eq!(browser.ask(&open(part)).await, true, "{part}");
    }
    for (part, told) in [
        ("Reorganisations", "42\\t39\\t3\\t"),
        ("Sinks", "events (file)\\tstreaming\\t"),
        ("Tables and journals", "seen\\ttable"),
        ("Processes", "writer"),
        ("Speed by minute", "this one"),
    ] {
        // Who writes is looked up now and then.
        browser.until(part, &format!("{} return part.innerText.includes('{told}')", part_of(part))).await;
    }
    browser.click_part("Speed by minute").await;

    // Enter opens and closes, Tab leads on.
    let blocks = "Last blocks";
    browser.ask(&format!("{} part.querySelector('summary').focus()", part_of(blocks))).await;
    for is_open in [false, true] {
        browser.press(ENTER).await;
        assert_eq!(browser.ask(&open(blocks)).await, is_open);
    }
    browser.press(TAB).await;
    let focused = browser.ask("return document.activeElement.getAttribute('aria-label')").await;
    assert_eq!(focused, blocks, "a table that scrolls can be scrolled by keys");
    browser.ask("document.activeElement.blur()").await;
}

/// What a screen reader goes by, and that texts stand out from what is behind them.
async fn judged_by_structure(browser: &Browser) {
    let unnamed = "return [...document.querySelectorAll('svg[role=img], section, [role=region], [role=progressbar], table')]
        .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.querySelector('caption')))
        .map(e => e.outerHTML.slice(0, 80))";
    assert_eq!(browser.ask(unnamed).await, serde_json::json!([]));
    let landmarks =
        "return ['h1', 'main', 'header', 'footer', '[role=status][aria-live=polite]', 'html[lang]']
        .filter(selector => document.querySelectorAll(selector).length === 0)";
    assert_eq!(browser.ask(landmarks).await, serde_json::json!([]));
    for scheme in ["light", "dark"] {
        browser.colours(scheme).await;
        let faint = browser.ask(CONTRAST).await;
        assert_eq!(faint, serde_json::json!([]), "in {scheme}");
    }
    browser.colours("light").await;
}

/// Texts whose contrast is below 4.5, the least of WCAG 2.2 (1.4.3, level AA).
const CONTRAST: &str = "
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => { for (; e; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
    return [...document.querySelectorAll('body *')]
        .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.closest('svg, script, noscript') === null)
        .map(e => { const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
            return [e.textContent.slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
        .filter(([, contrast]) => contrast < 4.5)";

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_when_it_has_lost_the_server_and_finds_it_again() {
    let served = Served::new("server_lost", &format!("token = \"{TOKEN}\""), 8).await;
    let mut running = served.start().await;
    served.scene.caught_up().await;
    let browser = Browser::open().await;
    browser.size(1280, 900, false).await;
    // The token is asked for, and then no more.
    let url = format!("http://{}/", served.address);
    browser.go(&url).await;
    let text = browser.ask("return document.body.innerText").await;
    assert!(text.as_str().unwrap().contains("/?token="), "{text}");
    browser.go(&format!("{url}?token={TOKEN}")).await;
    browser.until("it is live", LIVE).await;
    assert_eq!(browser.ask("return location.href").await, url, "the token is not left in the address");

    running.kill().await.unwrap();
    tokio::time::timeout(
        DEADLINE,
        browser.until("it is lost", "return !document.getElementById('alarm').hidden"),
    )
    .await
    .unwrap();
    let said = browser.ask("return document.getElementById('say').textContent").await;
    assert_eq!(said, "Lost the server. Trying again.");
    browser
        .until("its age is said", "return /is \\d+ s old/.test(document.getElementById('alarm').textContent)")
        .await;
    browser.shoot("lost").await;
    let running = served.start().await;
    browser.until("it is back", LIVE).await;
    assert_eq!(browser.ask("return document.getElementById('alarm').hidden").await, true);
    let said = browser.ask("return document.getElementById('say').textContent").await;
    assert_eq!(said, "The server is back.");
    ends_well(running).await;
}
