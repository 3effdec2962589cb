# In a container of the driver: each line of /tries is STATUS|what it says|shell words, and must end like that.
export pid_file=/run/nvidia/nvidia-driver.pid source=/opt/driverctr/source/nvidia-535.309.01/kernel
bad=0
while IFS='|' read -r status text words; do
    began=$SECONDS
    said=$(timeout 100 bash -c "$words" 2>&1 </dev/null)
    ended=$?
    if [ "$ended" = "$status" ] && [[ $said == *"$text"* ]] && [[ $said != *Traceback* ]]; then
        echo "ok: $status, $text: $words ($((SECONDS - began)) s)"
    else
        printf 'NOT OK: %s ended with %s, and should with %s and say: %s\n%s\n' "$words" "$ended" "$status" "$text" "$said"
        bad=1
    fi
done </tries
exit $bad
