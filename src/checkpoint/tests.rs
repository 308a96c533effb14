use super::random::{Like, Random, Stored};
use super::*;

fn offline(cache: &Path) -> Hub {
    let cache = cache.to_str().unwrap().to_owned();
    Hub::from_lookup(|name| match name {
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HF_HUB_OFFLINE" => Some("1".into()),
        _ => None,
    })
}

fn tiny(folder: &Path) {
    Random { like: Like::Gpt2, tiny: true, stored: Stored::F32, seed: 1 }.write(folder).unwrap();
}

/// A cache that holds a tiny gpt2 as `owner/tiny`, branch `main`.
fn cache() -> tempfile::TempDir {
    let cache = tempfile::tempdir().unwrap();
    let repository = cache.path().join("models--owner--tiny");
    tiny(&repository.join("snapshots/0123abcd"));
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), "0123abcd").unwrap();
    cache
}

fn find(model: &str, dir: &Path, hub: &Hub) -> Result<Checkpoint, String> {
    Checkpoint::find(model, None, dir, hub, Wanted::Model).map_err(|error| error.to_string())
}

#[test]
fn the_environment_says_where_the_cache_is() {
    let hub = |pairs: &'static [(&str, &str)]| {
        Hub::from_lookup(move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(hub(&[("HF_HOME", "/h")]).cache, Path::new("/h/hub"));
    assert_eq!(hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    assert_eq!(hub(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
    assert!(hub(&[("HF_HUB_OFFLINE", "True")]).offline && !hub(&[("HF_HUB_OFFLINE", "0")]).offline);
}

#[test]
fn the_cache_is_enough_without_a_hub() {
    let cache = cache();
    let hub = offline(cache.path());
    let found = find("owner/tiny", Path::new(""), &hub).unwrap();
    assert_eq!(found.revision.as_deref(), Some("0123abcd"));
    assert_eq!(found.weights().len(), 1);
    let by_commit =
        Checkpoint::find("owner/tiny", Some("0123abcd"), Path::new(""), &hub, Wanted::Model).unwrap();
    assert_eq!(by_commit.path, found.path);
    assert_eq!(hub.list(), [("owner/tiny".to_owned(), found.path.clone())]);
    let outline = Outline::read(&found).unwrap();
    assert_eq!(
        (outline.architecture.as_str(), outline.layers, outline.vocabulary),
        ("gpt2", Some(2), Some(512))
    );
    assert_eq!(outline.weight_bytes, outline.parameters * 4);
}

#[test]
fn what_is_not_there_says_where_it_was_looked_for() {
    let cache = cache();
    let hub = offline(cache.path());
    let shown = |model: &str| {
        let message = find(model, Path::new("/nowhere"), &hub).unwrap_err();
        message.replace(cache.path().to_str().unwrap(), "CACHE")
    };
    insta::assert_snapshot!(shown("./missing"), @"there is no model `./missing`: /nowhere/missing does not exist, and it is no hub id, which reads ORG/NAME");
    insta::assert_snapshot!(shown("owner/other"), @"model `owner/other` is not in the cache, and the hub is offline (HF_HUB_OFFLINE): CACHE holds no revision `main` of it");
    insta::assert_snapshot!(shown("gpt2"), @"model `openai-community/gpt2` is not in the cache, and the hub is offline (HF_HUB_OFFLINE): CACHE holds no revision `main` of it");
    std::fs::remove_file(cache.path().join("models--owner--tiny/snapshots/0123abcd/model.safetensors"))
        .unwrap();
    insta::assert_snapshot!(shown("owner/tiny"), @"model `owner/tiny` is not in the cache, and the hub is offline (HF_HUB_OFFLINE): CACHE/models--owner--tiny/snapshots/0123abcd lacks model.safetensors");
}

#[test]
fn folders_and_files_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let hub = offline(dir.path());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let shown = |message: String| message.replace(dir.path().to_str().unwrap(), "DIR");
    let error = shown(find("empty", dir.path(), &hub).unwrap_err());
    assert_eq!(error, "DIR/empty holds no whole model: it lacks config.json");
    std::fs::write(empty.join("a.gguf"), gguf::fixture::gguf(&[])).unwrap();
    assert!(find("empty", dir.path(), &hub).unwrap().is_gguf());
    std::fs::write(empty.join("b.gguf"), "").unwrap();
    let error = shown(find("empty", dir.path(), &hub).unwrap_err());
    assert_eq!(error, "DIR/empty: it holds 2 .gguf files; name one of them");
    std::fs::write(dir.path().join("model.bin"), "").unwrap();
    let error = shown(find("model.bin", dir.path(), &hub).unwrap_err());
    assert_eq!(error, "DIR/model.bin: a model is a folder with config.json, or one .gguf file");
    let broken = Checkpoint { name: "b".into(), path: empty.join("b.gguf"), revision: None };
    let error = shown(Outline::read(&broken).unwrap_err().to_string());
    assert_eq!(error, "DIR/empty/b.gguf: it does not start with `GGUF`, so it is no GGUF file");
}

#[test]
fn a_file_that_was_cut_off_is_told() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let file = dir.path().join(WEIGHTS);
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
    let checkpoint = Checkpoint { name: "t".into(), path: dir.path().to_owned(), revision: None };
    let error = Outline::read(&checkpoint).unwrap_err().to_string();
    assert!(error.contains("it is truncated: tensor `ln_f.bias` ends at byte"), "{error}");
}

#[test]
fn random_weights_repeat_and_follow_their_seed() {
    let read = |seed| {
        let dir = tempfile::tempdir().unwrap();
        Random { like: Like::Qwen25Of05b, tiny: true, stored: Stored::Bf16, seed }.write(dir.path()).unwrap();
        std::fs::read(dir.path().join(WEIGHTS)).unwrap()
    };
    let (first, again, other) = (read(1), read(1), read(2));
    assert!(first == again && first != other && first.len() == other.len());
}

#[test]
fn parameters_are_those_of_the_real_models() {
    // As their model cards and safetensors headers count them.
    let real = [124_439_808, 125_239_296, 134_515_008, 494_032_768];
    for ((name, like), wanted) in Like::ALL.into_iter().zip(real) {
        let tensors = like.shape_parameters();
        assert_eq!(tensors, wanted, "{name}");
    }
}

#[cfg(feature = "hub")]
mod fetching {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// A hub on the loopback that holds `owner/tiny` and answers so many requests.
    fn serve(folder: PathBuf) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                let range =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned)
                    });
                let path = request.split(' ').nth(1).unwrap();
                let body = if path.starts_with("/api/models/owner/tiny/revision/main") {
                    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
                    let files: Vec<_> = names
                        .map(|name| serde_json::json!({ "rfilename": name.to_string_lossy() }))
                        .collect();
                    Some(serde_json::json!({ "siblings": files, "sha": "feed" }).to_string().into_bytes())
                } else {
                    path.strip_prefix("/owner/tiny/resolve/main/")
                        .and_then(|file| std::fs::read(folder.join(file)).ok())
                };
                let reply = match body {
                    None => {
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                    }
                    Some(body) => {
                        let total = body.len();
                        let part = range.as_deref().and_then(|range| {
                            let (from, to) = range.split_once('-')?;
                            let to = to.parse().unwrap_or(total - 1).min(total - 1);
                            Some((from.parse::<usize>().ok()?, to))
                        });
                        let (from, to) = part.unwrap_or((0, total.saturating_sub(1)));
                        let status = if part.is_some() { "206 Partial Content" } else { "200 OK" };
                        let mut reply = format!(
                            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{total}\r\nETag: \"{}\"\r\nx-repo-commit: feed\r\nConnection: close\r\n\r\n",
                            to + 1 - from,
                            blake3::hash(&body).to_hex(),
                        )
                        .into_bytes();
                        reply.extend(&body[from..=to]);
                        reply
                    }
                };
                let _ = stream.write_all(&reply);
            }
        });
        address
    }

    fn online(cache: &Path, endpoint: &str) -> Hub {
        let (cache, endpoint) = (cache.to_str().unwrap().to_owned(), endpoint.to_owned());
        Hub::from_lookup(move |name| match name {
            "HF_HUB_CACHE" => Some(cache.clone()),
            "HF_ENDPOINT" => Some(endpoint.clone()),
            _ => None,
        })
    }

    #[test]
    fn what_is_missing_is_fetched_once() {
        let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tiny(source.path());
        let hub = online(cache.path(), &serve(source.path().to_owned()));
        let found = find("owner/tiny", Path::new(""), &hub).unwrap();
        assert_eq!(found.revision.as_deref(), Some("feed"));
        assert!(Outline::read(&found).unwrap().parameters > 0);
        // From now on the cache is enough.
        assert_eq!(find("owner/tiny", Path::new(""), &offline(cache.path())).unwrap().path, found.path);
        let message = find("owner/none", Path::new(""), &hub).unwrap_err();
        assert!(message.contains("there is no such repository or revision"), "{message}");
    }

    #[test]
    fn a_hub_that_is_not_there_is_told() {
        let cache = tempfile::tempdir().unwrap();
        let message =
            find("owner/tiny", Path::new(""), &online(cache.path(), "http://127.0.0.1:1")).unwrap_err();
        assert!(message.contains("it can not be reached; set HF_HUB_OFFLINE=1"), "{message}");
    }
}
