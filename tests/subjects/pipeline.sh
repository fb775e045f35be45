#!/bin/bash
# A pipeline that goes on for ever, and a job in the background; on TERM both have to be as they should.
told=
trap 'told=1' TERM
numbers() { local n=0; while :; do echo $((n++)); [ $((n % 50)) = 0 ] && sleep 0.01; done; }
squares() { local n; while read -r n; do echo "$n $((n * n))"; done; }
judge() {
    local line=0 n square
    while read -r n square; do
        [ "$n" = "$line" ] && [ "$square" = $((n * n)) ] || { echo "FAIL: line $line is $n $square" >wrong; return; }
        line=$((line + 1))
        [ $((line % 50)) = 0 ] && echo "$line" >progress
    done
}
numbers | squares | judge &
pipeline=$!
sleep 1000 &
job=$!
echo READY
while [ -z "$told" ]; do sleep 0.05; done
before=$(tail -n 1 progress)
sleep 1
kill -0 "$job" 2>/dev/null || { echo "FAIL: the background job is gone"; exit 1; }
[ -s wrong ] && { cat wrong; exit 1; }
[ "$(tail -n 1 progress)" != "$before" ] || { echo "FAIL: the pipeline stands still at $before"; exit 1; }
[ "$(jobs -r | wc -l)" = 2 ] || { echo "FAIL: jobs:"; jobs; exit 1; }
kill "$job" "$pipeline"
echo OK
