//! Reads the counters of a process.

/// The sum of a counter over all label sets that contain each of `labels`.
pub(crate) async fn counter(address: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let text = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
    let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    text.lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && wanted.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
