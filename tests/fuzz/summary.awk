# Of the logs of libFuzzer: a table, then one sentence. awk -f summary.awk build/log/*
function flush() {
    if (target == "") return
    printf "| %s | %s | %s | %s | %s | %s | %s |\n", target, commas(runs), edges, features, inputs, seconds, crashes
    targets++
    all_runs += runs
    all_seconds += seconds
    all_crashes += crashes
}
function commas(number,    text) {
    text = sprintf("%d", number)
    while (match(text, /[0-9][0-9][0-9][0-9]+($|,)/)) {
        sub(/[0-9][0-9][0-9]($|,)/, ",&", text)
        if (text ~ /^,/) text = substr(text, 2)
    }
    return text
}
BEGIN { print "| target | executions | edges | features | inputs | seconds | crashes |\n|---|---|---|---|---|---|---|" }
FNR == 1 {
    flush()
    target = FILENAME
    sub(/.*\//, "", target)
    runs = edges = features = inputs = seconds = crashes = 0
}
/^#[0-9]+.* cov: / {
    runs = substr($1, 2)
    for (i = 2; i < NF; i++) {
        if ($i == "cov:") edges = $(i + 1)
        if ($i == "ft:") features = $(i + 1)
        if ($i == "corp:") { inputs = $(i + 1); sub(/\/.*/, "", inputs) }
    }
}
/^Done [0-9]+ runs in/ { seconds = $5 }
/^SUMMARY: / { crashes++ }
/^stat::number_of_executed_units:/ { runs = $2 }
END {
    flush()
    printf "%d targets, %s executions in %d seconds of fuzzing, %d crashes\n", targets, commas(all_runs), all_seconds, all_crashes
}
