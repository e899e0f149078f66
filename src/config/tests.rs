//! The configuration, from its layers to what is loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// Inputs with a file of this text in a folder of its own.
struct Case {
    inputs: Inputs,
    folder: tempfile::TempDir,
}

fn file(text: &str) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("debshrew.toml");
    std::fs::write(&path, text).unwrap();
    Case { inputs: Inputs { file: Some(path), ..Inputs::default() }, folder }
}

fn variables(pairs: &[(&str, &str)]) -> Case {
    file("").variables(pairs)
}

impl Case {
    fn variables(mut self, pairs: &[(&str, &str)]) -> Case {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.inputs.environment = pairs.collect::<BTreeMap<_, _>>();
        self
    }

    fn load(&self) -> Config {
        load(&self.inputs).unwrap()
    }

    fn error(&self) -> String {
        load(&self.inputs).unwrap_err().to_string()
    }

    fn setting(&self, key: &str) -> Setting {
        let list = Settings::gather(&self.inputs).unwrap().list();
        list.into_iter().find(|setting| setting.key == key).unwrap()
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let mut case =
        file("[database]\nurl = 'host=file'\n[source]\nurls = ['http://a', 'http://b']\nretries = 1");
    assert_eq!(case.load().database.url.reveal(), "host=file");
    assert_eq!(case.load().source.urls, ["http://a", "http://b"]);
    assert_eq!(case.load().source.request_timeout, Duration::from_secs(30));
    assert_eq!(case.setting("source.request_timeout").origin, "default");
    let file = case.folder.path().join("debshrew.toml");
    assert_eq!(case.setting("source.retries").origin, format!("file {}", file.display()));

    case = case.variables(&[("DATABASE_URL", "host=plain")]);
    assert_eq!(case.load().database.url.reveal(), "host=plain");
    assert_eq!(case.setting("database.url").origin, "variable DATABASE_URL");

    case = case.variables(&[
        ("DATABASE_URL", "host=plain"),
        ("DEBSHREW__DATABASE__URL", "host=ours"),
        ("DEBSHREW__SOURCE__RETRIES", "2"),
        ("DEBSHREW__SOURCE__URLS", "http://c"),
    ]);
    assert_eq!(case.load().database.url.reveal(), "host=ours");
    assert_eq!(case.load().source.retries, 2);
    assert_eq!(case.load().source.urls, ["http://c"]);

    case.inputs.flags = Flags {
        database_url: Some("host=flag".to_owned()),
        source_urls: vec!["http://d".to_owned(), "http://e".to_owned()],
        log_filter: Some("debug".to_owned()),
        log_format: Some("json".to_owned()),
    };
    let config = case.load();
    assert_eq!(config.database.url.reveal(), "host=flag");
    assert_eq!(config.source.urls, ["http://d", "http://e"]);
    assert_eq!((config.log.filter.as_str(), config.log.format), ("debug", LogFormat::Json));
    assert_eq!(case.setting("database.url").origin, "flag --database-url");
}

#[test]
fn credentials_win_over_the_file_and_variables_over_them() {
    let folder = tempfile::tempdir().unwrap();
    let credential = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let named = ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());
    credential("database.url", "host=sesame password=sesame\n");
    credential("source.headers.x-api-key", "k");
    credential("pipelines.ledger.retention", "7\n");
    // For somebody else.
    credential("postgres_password", "x");
    credential("other.service", "x");
    let text = "[database]\nurl = 'host=file'\n[pipelines.ledger]\ntransform = 'l.wasm'\nretention = 3";
    let case = file(text).variables(&[named]);
    assert_eq!(case.load().database.url.reveal(), "host=sesame password=sesame");
    assert_eq!(case.load().pipelines["ledger"].retention, 7);
    assert_eq!(case.load().source.headers["x-api-key"].reveal(), "k");
    assert_eq!(case.setting("database.url").origin, "credential database.url");
    let case = file(text).variables(&[named, ("DATABASE_URL", "host=plain")]);
    assert_eq!(case.load().database.url.reveal(), "host=plain");
    credential("database.ulr", "sesame");
    let expected = "the key `database.ulr` (credential database.ulr) is unknown; the nearest known one is `database.url`";
    assert_eq!(case.error(), expected);
    let missing = file("").variables(&[("CREDENTIALS_DIRECTORY", "/no/such/folder")]);
    assert!(missing.error().contains("/no/such/folder"), "{}", missing.error());
}

#[test]
fn yes_and_no_are_true_and_false() {
    let text = "[pipelines.a]\ntransform = 'x'\n";
    let notify = |case: Case| case.load().pipelines["a"].notify;
    assert!(!notify(file(text)));
    assert!(notify(file(&format!("{text}notify = true"))));
    assert!(notify(file(text).variables(&[("DEBSHREW__PIPELINES__A__NOTIFY", "true")])));
    assert!(file(&format!("{text}notify = 'yes'")).error().contains("it must be `true` or `false`"));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let case = file("[database]\nurl = 'host=file'")
        .variables(&[("DATABASE_URL", ""), ("DEBSHREW__LOG__FILTER", "")]);
    assert_eq!(case.load().database.url.reveal(), "host=file");
    assert_eq!(case.load().log.filter, "info");
}

#[test]
fn variables_reach_into_pipelines_whatever_their_names() {
    let case = file("[pipelines.ledger]\ntransform = 'l.wasm'\n[pipelines.a__b_]\ntransform = 'a.wasm'")
        .variables(&[
            ("DEBSHREW__PIPELINES__LEDGER__RETENTION", "7"),
            ("DEBSHREW__PIPELINES__LEDGER__LIMITS__MEMORY_BYTES", "2MiB"),
            ("DEBSHREW__PIPELINES__A__B___SCHEMA", "Other"),
            ("DEBSHREW__PIPELINES__FRESH__TRANSFORM", "f.wasm"),
            ("DEBSHREW__SOURCE__HEADERS__X_API_KEY", "k"),
        ]);
    let config = case.load();
    assert_eq!(config.pipelines["ledger"].retention, 7);
    assert_eq!(config.pipelines["ledger"].limits.memory_bytes, 2 << 20);
    assert_eq!(config.pipelines["a__b_"].schema, "Other");
    assert_eq!(config.pipelines["fresh"].schema, "fresh");
    assert_eq!(config.source.headers["x-api-key"].reveal(), "k");
}

#[test]
fn paths_in_the_file_are_relative_to_it_and_those_of_variables_are_not() {
    let case = file(
        "[database]\ntls_root_cert = '/etc/ca.pem'\n[pipelines.a]\ntransform = 'x/a.wasm'\nmigrations = 'm'",
    )
    .variables(&[("DEBSHREW__PIPELINES__A__MIGRATIONS", "here")]);
    let config = case.load();
    assert_eq!(config.pipelines["a"].transform, case.folder.path().join("x/a.wasm"));
    assert_eq!(config.pipelines["a"].migrations.as_deref(), Some(Path::new("here")));
    assert_eq!(config.database.tls_root_cert.as_deref(), Some(Path::new("/etc/ca.pem")));
}

#[test]
fn unknown_keys_name_where_they_stand_and_the_nearest_known_one() {
    for (text, key, nearest) in [
        ("[source]\nretrys = 1", "source.retrys", "source.retries"),
        ("[sauce]\nurls = []", "sauce", "source.urls"),
        ("[database]\nfilter = 'x'", "database.filter", "log.filter"),
        ("[pipelines.ledger]\nretension = 1", "pipelines.ledger.retension", "pipelines.ledger.retention"),
        ("[pipelines.a.limits]\nfule = 1", "pipelines.a.limits.fule", "pipelines.a.limits.fuel"),
        ("pool_size = 1", "pool_size", "database.pool_size"),
    ] {
        let case = file(text);
        let place = case.folder.path().join("debshrew.toml");
        let expected = format!(
            "the key `{key}` (file {}) is unknown; the nearest known one is `{nearest}`",
            place.display()
        );
        assert_eq!(case.error(), expected);
    }
    assert_eq!(
        variables(&[("DEBSHREW__DATABASE__ULR", "x")]).error(),
        "the variable `DEBSHREW__DATABASE__ULR` is unknown; the nearest known one is `DEBSHREW__DATABASE__URL`"
    );
    assert_eq!(
        variables(&[("DEBSHREW__PIPELINES__A__RETENTON", "x")]).error(),
        "the variable `DEBSHREW__PIPELINES__A__RETENTON` is unknown; the nearest known one is \
         `DEBSHREW__PIPELINES__A__RETENTION`"
    );
    // Not ours, so no error.
    variables(&[("DEBSHREW_TEST_DATABASE_URL", "x"), ("PATH", "y")]).load();
}

#[test]
fn wrong_values_say_what_is_allowed_and_where_they_came_from() {
    assert_eq!(
        variables(&[("DEBSHREW__SOURCE__RETRIES", "many")]).error(),
        "`source.retries` (variable DEBSHREW__SOURCE__RETRIES) has a wrong value; it must be a whole number from 0 to 100"
    );
    for (text, expected) in [
        ("[log]\nformat = 'xml'", "it must be one of `text`, `json`"),
        ("[log]\nfilter = 'debshrew=loud'", "it must be a log filter such as `info`"),
        ("[source]\nurls = ['ftp://a']", "each URL must be like `http://HOST:PORT`"),
        ("[source]\nurls = [1]", "it must be a text"),
        ("[source]\npoll_interval = 0", "it must be a duration such as `500ms`"),
        ("[source]\nmax_response_bytes = '1TiB'", "from 1.0 KiB to 4.0 GiB"),
        ("[source]\nretries = { a = 1 }", "`source.retries` is a single value"),
        ("source = 1", "it must be a section, `[source]`"),
        ("[pipelines]\nretention = 1", "it must be a section, `[pipelines.retention]`"),
        ("[pipelines.Big]\ntransform = 'x'", "is no name for a pipeline"),
        ("[source.headers]\n'a b' = 'x'", "is no name of an HTTP header"),
        ("[pipelines.debshrew]\ntransform = 'x'", "are not for a transform's tables"),
        ("[pipelines.a]\ntransform = 'x'\nschema = 'pg_x'", "are not for a transform's tables"),
        ("[pipelines.a]\ntransform = ''", "it must be the path of a file or folder"),
        ("[pipelines.a]", "pipeline `a` has no `transform`"),
        ("[pipelines.a]\ntransform = 'x'\nstart_height = 2147483648", "from 0 to 2147483647"),
        ("[source]\nusername = 'u'\npassword = 'p'\nbearer_token = 't'", "the one or the other"),
        ("[source]\npassword = 'p'", "basic authentication takes both"),
        ("[source", "is not TOML at line 1, column 8"),
    ] {
        let error = file(text).error();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let missing = Inputs { file: Some(PathBuf::from("no/such.toml")), ..Inputs::default() };
    assert_eq!(load(&missing).unwrap_err().to_string(), "cannot read the configuration file `no/such.toml`");
}

#[test]
fn two_pipelines_do_not_share_a_schema() {
    let text = "[pipelines.a]\ntransform = 'x'\nschema = 'b'\n[pipelines.b]\ntransform = 'x'";
    assert_eq!(
        file(text).error(),
        "the pipelines `a` and `b` both have the schema `b`; each needs one of its own"
    );
}

#[test]
fn headers_are_told_apart_regardless_of_case() {
    let case = file("[source.headers]\nX-Api-Key = 'file'")
        .variables(&[("DEBSHREW__SOURCE__HEADERS__X_API_KEY", "v")]);
    let headers = case.load().source.headers;
    assert_eq!(headers.len(), 1);
    assert_eq!(headers["x-api-key"].reveal(), "v");
}

#[test]
fn secrets_show_neither_in_the_list_nor_in_errors() {
    let case = file(
        "[database]\nurl = 'postgres://u:sesame@h/d'\n[source]\nusername = 'u'\npassword = 'sesame'\n\
         urls = ['http://u:sesame@h:1', 'http://h:2']\nheaders = { authorization = 'sesame' }",
    );
    let list = format!("{:?}", Settings::gather(&case.inputs).unwrap().list());
    assert!(!list.contains("sesame"), "{list}");
    assert_eq!(case.setting("database.url").value.unwrap(), "h:5432/d …");
    assert_eq!(case.setting("source.urls").value.unwrap(), "http://…@h:1, http://h:2");
    assert_eq!(case.setting("source.headers.authorization").value.unwrap(), "[hidden]");
    assert_eq!(case.setting("source.bearer_token").value, None);
    assert!(!format!("{:?}", case.load()).contains("sesame"));
    for text in
        ["[source]\nurls = 'u:sesame@h'", "[source]\npassword = 1\nusername = 'u'", "[database]\nurl = 1234"]
    {
        let error = file(text).error();
        assert!(!error.contains("sesame") && !error.contains("`1") && error.contains("must be"), "{error}");
    }
}

#[test]
fn what_only_some_commands_need_may_be_absent() {
    let mut case = file("");
    let missing = |case: &Case| {
        case.load().check_runnable().map_err(|error| (error.to_string(), error.hint().is_some()))
    };
    assert_eq!(missing(&case), Err(("no database is configured".to_owned(), true)));
    case = variables(&[("DATABASE_URL", "host=h")]);
    assert_eq!(missing(&case), Err(("no source is configured".to_owned(), true)));
    case.inputs.flags.source_urls = vec!["http://a".to_owned()];
    assert_eq!(missing(&case), Err(("no pipeline is configured".to_owned(), true)));
    case.inputs.environment.insert("DEBSHREW__PIPELINES__A__TRANSFORM".to_owned(), "a.wasm".to_owned());
    assert_eq!(missing(&case), Ok(()));
}

#[test]
fn the_table_of_keys_agrees_with_the_defaults_in_the_code() {
    let config = file("[pipelines.a]\ntransform = 'x'").load();
    let limits = &config.pipelines["a"].limits;
    assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()));
    for key in KEYS {
        assert!(key.meaning.ends_with('.'), "{}", key.name);
    }
}

#[test]
fn the_example_file_is_right_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("debshrew.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = load(&Inputs { file: Some(path.clone()), ..Inputs::default() }).unwrap();
    let ledger = &config.pipelines["ledger"];
    assert!(ledger.transform.ends_with("transforms/target/wasm32-unknown-unknown/release/ledger.wasm"));
    assert!(ledger.migrations.as_ref().unwrap().ends_with("transforms/ledger/migrations"));

    // With the comments' signs taken from in front of the keys, it is still right, and sets the defaults.
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && KEYS.iter().any(|key| key.name.split('.').any(|segment| segment == name))
    };
    let set: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|key| is_key(key)).unwrap_or(line))
        .filter(|line| !line.starts_with("bearer_token"))
        .collect();
    let all = file(&set.join("\n"));
    all.load();
    let has_example = |key: &&Key| {
        // Sinks have pages of their own.
        !matches!(key.name, "source.bearer_token" | "source.headers.NAME") && !key.name.contains(".SINK.")
    };
    for key in KEYS.iter().filter(has_example) {
        let name = key.name.replace("NAME", "ledger");
        let setting = all.setting(&name);
        assert!(setting.origin.starts_with("file"), "the example does not name {name}");
        let default = key.default.filter(|default| !["", "NAME"].contains(default));
        assert!(
            default.is_none() || setting.value.as_deref() == default,
            "the example's {name} is not the default"
        );
    }
}

#[test]
fn a_server_that_others_can_reach_asks_for_a_token() {
    let runnable = |server: &str| {
        let text = format!(
            "[database]\nurl = 'host=h'\n[source]\nurls = ['http://h']\n[pipelines.a]\ntransform = 'a.wasm'\n\
             [server]\n{server}"
        );
        file(&text).load().check_runnable()
    };
    for open in ["listen = '0.0.0.0:9464'", "listen = '[::]:9464'", "listen = '10.0.0.1:9464'"] {
        let error = runnable(open).unwrap_err();
        assert!(error.to_string().contains("`server.token` is not set"), "{error}");
        assert!(error.hint().unwrap().contains("DEBSHREW__SERVER__TOKEN"));
        runnable(&format!("{open}\ntoken = '0123456789abcdef'")).unwrap();
    }
    for fine in ["", "listen = '127.0.0.1:9464'", "listen = '[::1]:0'"] {
        runnable(fine).unwrap();
    }
    let short = file("[server]\ntoken = 'sesame'").error();
    assert!(
        short.contains("`server.token`") && short.contains("16 characters") && !short.contains("sesame"),
        "{short}"
    );
}
