//! Takes secrets out of texts, by their looks: keys of Ria, credentials in URLs, private keys in PEM or as WireGuard writes
//! them, and values of what is called a password.

/// What stands for a secret.
const GONE: &str = "[left out]";

/// How secrets of Ria begin.
const KEYS: [&str; 2] = ["ria1_", "riarelay1_"];

/// What a line says before a secret.
const WORDS: [&str; 5] = ["password", "passwd", "secret", "privatekey", "presharedkey"];

/// The text without what looks like a secret.
pub fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_private_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_private_key = true;
            clean.push_str(GONE);
            clean.push('\n');
        }
        if !in_private_key {
            clean.push_str(&scrub_line(line));
        }
        if line.contains("-----END") {
            in_private_key = false;
        }
    }
    clean
}

fn scrub_line(line: &str) -> String {
    let line = without_named(line);
    let mut line = without_credentials(&line);
    for key in KEYS {
        line = without_key(&line, key);
    }
    line
}

/// `password = "…"`: everything behind the sign.
fn without_named(line: &str) -> String {
    let Some(at) = line.find(['=', ':']) else { return line.to_owned() };
    let name: String =
        line[..at].chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if WORDS.iter().any(|word| name.ends_with(word)) {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        return format!("{} {GONE}{end}", &line[..=at]);
    }
    line.to_owned()
}

/// `http://name:password@host`: what is before the host.
fn without_credentials(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let authority =
            after.find(|c: char| c.is_whitespace() || "/\"'<>".contains(c)).unwrap_or(after.len());
        rest = match after[..authority].rfind('@') {
            Some(end) => {
                clean.push_str(GONE);
                &after[end..]
            }
            None => after,
        };
    }
    clean + rest
}

/// A key, from its first letters as far as one may go.
fn without_key(line: &str, begins: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.to_ascii_lowercase().find(begins) {
        clean.push_str(&rest[..at]);
        clean.push_str(GONE);
        let key = &rest[at..];
        let end = key.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(key.len());
        rest = &key[end..];
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_what_is_around_them_stays() {
        for (text, clean) in [
            ("join with ria1_abc234 failed, RIA1_DEF too", "join with [left out] failed, [left out] too"),
            ("RIA_RELAY_KEY=riarelay1_xyz\n", "RIA_RELAY_KEY=[left out]\n"),
            (
                "proxy = \"http://robot:s%40cret@proxy.example:3128\"",
                "proxy = \"http://[left out]@proxy.example:3128\"",
            ),
            ("at https://ria.lab.example/a@b and", "at https://ria.lab.example/a@b and"),
            ("PrivateKey = aGVsbG8=\nAddress = 10.0.0.1\n", "PrivateKey = [left out]\nAddress = 10.0.0.1\n"),
            ("  \"password\": \"x\"", "  \"password\": [left out]"),
            ("a\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nb", "a\n[left out]\nb"),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n", "-----BEGIN CERTIFICATE-----\nMIIB\n"),
            ("ünï ria1_ö", "ünï [left out]ö"),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }
}
