//! parity run (to be replaced)
use std::sync::atomic::{AtomicUsize, Ordering};
use ebb_tests_lending::*;
use std::path::Path;
fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_default();
    let golden = golden::read(Path::new(&std::env::args().nth(2).unwrap_or_default()))?;
    let only = std::env::args().nth(3).unwrap_or_default();
    let t0 = std::time::Instant::now();
    for found in trace::find(Path::new(&dir))? {
        let eras = trace::read(&found)?;
        for regime in found.kind.regimes() {
            let set = set::Set::new(found.kind, *regime, &eras);
            let Some((name, gold)) = golden.iter().find(|(n, _)| n.starts_with(set.name())) else { continue };
            if !only.is_empty() && !only.split(',').any(|o| name.starts_with(o)) { continue }
            println!("== {name} {:?}", t0.elapsed());
            for (era, f) in set.facts() {
                let g = &gold.eras.get(&era);
                println!("{era} {f:?} {:?}", g.map(|g| golden::deviations(g, &f).iter().map(|x| x.1).fold(0.0, f64::max)));
            }
            for era in &set.eras { for l in &era.lines { let c = set.kind.capacity(); let m = |b: &mut dyn Iterator<Item=usize>| { let v: Vec<f64> = b.map(|b| l.timeline.limits[b]).collect(); v.iter().sum::<f64>()/v.len() as f64/c }; if set.name()=="r1" { println!("M {} mean scored {:.3} mean all {:.3} maxtask {:.3} produtil {:.5} all {:.5}", era.name, m(&mut l.bins.iter().copied()), m(&mut (0..l.timeline.machine.bins)), l.timeline.machine.capacity/c, l.bins.iter().map(|b| l.timeline.used[*b]).sum::<f64>()/c/l.bins.len() as f64, l.timeline.used.iter().sum::<f64>()/c/l.timeline.used.len() as f64); } } }
            let names: Vec<&String> = gold.results.keys().collect();
            let next = AtomicUsize::new(0);
            std::thread::scope(|s| {
                for _ in 0..2 { s.spawn(|| loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(n) = names.get(i) else { break }; if let Ok(f) = std::env::var("RF") { if !n.contains(&f) { continue } }
                    let t = std::time::Instant::now();
                    let rule = match rules::Rule::named(n) { Ok(r) => r, Err(e) => { println!("{n}: {e:#}"); continue } };
                    let own = set.run(&rule);
                    let g = &gold.results[*n];
                    let mut d = golden::deviations(g, &own);
                    d.sort_by(|a, b| b.1.total_cmp(&a.1));
                    let bad: Vec<String> = d.iter().filter(|x| x.1 > 1e-4).take(30).map(|x| format!("{} {:.5} vs {:.5}", x.0, own.get(&x.0).copied().unwrap_or(-1.0), g[&x.0])).collect();
                    println!("{n}: {:.1e} {} {:?} {}", d[0].1, d[0].0, t.elapsed(), bad.join("; "));
                }); }
            });
        }
    }
    Ok(())
}
