#!/usr/bin/env bash
# Four hospitals that disagree put replies to the vote, the coordinator adds the noised duels up and
# says how firm the choice is, and the collective pairs tune the model. Writes into runs/.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
wardround="${WARDROUND:-wardround}"
runs="${1:-runs}"
"$wardround" run "$here/ballots.toml" --runs "$runs"
latest="$(ls -dt "$runs"/collective-[0-9]* | head -n 1)"
"$wardround" decide "$latest" --pairs "$latest/pairs.jsonl"
"$wardround" run "$here/tune.toml" --data "$latest/pairs.jsonl" --runs "$runs"
