# Numbers go through a pipeline, slowly; the last stage adds them up.
i=0
while [ "$i" -lt 600 ]; do
    i=$((i + 1))
    echo "$i"
    sleep 0.05
done | awk '{ sum += $1 } END { print sum }'
