#!/bin/sh
# A pair of daemons as a peer of the harness that the goals were set with (docs/performance.md
# has its command): the network daemon, and beside it the process daemon, which identifies the
# programs below the harness. The policy has a hundred endpoints and names the harness as the
# program.
#
# start.sh identify|ignore inspect|tunnel PORT RUN CERTS HARNESS
set -eu
who=$1 how=$2 listen=$3 certs=$5 harness=$6
bin=$(cd "$(dirname "$0")/../../../bin" && pwd)
dir=$4/splitpod-$listen
rm -rf "$dir"
mkdir -p "$dir/state" "$dir/run"
chown -R 65532:65532 "$dir"
chmod 755 "$certs"
chmod 644 "$certs"/*.pem

{
	cat <<-POLICY
	version: 1
	process: {run_as_user: "1000", run_as_group: "1000"}
	network_policies:
	  harness:
	    binaries: [{path: "$harness"}]
	    endpoints:
	      - {host: 10.77.0.1, port: 9001, tls: skip, allowed_ips: [10.77.0.0/24]}
	POLICY
	case $how in
	tunnel)
		for port in 443 9001; do
			echo "      - {host: origin.bench.test, port: $port, tls: skip, allowed_ips: [10.77.0.0/24]}"
		done ;;
	inspect)
		for endpoint in 'origin.bench.test 443' 'origin.bench.test 80' '"h*.bench.test" 443'; do
			cat <<-POLICY
			      - host: ${endpoint% *}
			        port: ${endpoint#* }
			        protocol: rest
			        enforcement: enforce
			        allowed_ips: [10.77.0.0/24]
			        rules:
			          - allow: {method: GET, path: "/**"}
			          - allow: {method: POST, path: "/**"}
			          - allow: {method: PUT, path: "/**"}
			          - allow: {method: HEAD, path: "/**"}
			        deny_rules:
			          - {method: "*", path: "/denied/**"}
			          - {method: DELETE, path: "/never/**"}
			POLICY
		done ;;
	esac
	for i in $(seq 96); do
		echo "      - {host: other$i.example.com, port: 443, protocol: rest, access: read-only}"
	done
} > "$dir/policy.yaml"

identity=
[ "$who" = identify ] || identity=ignore
setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --no-new-privs \
	"$bin/supervisor-network" serve --listen "127.0.0.1:$listen" --policy "$dir/policy.yaml" \
	--state-dir "$dir/state" --run-dir "$dir/run" --admin-listen "" ${identity:+--identity $identity} \
	--process-uid 0 --upstream-roots "$certs/origin-ca.pem" --ca-out "$dir/state/ca.pem" > /dev/null 2> "$dir/network.log" &
network=$!
process=
if [ "$who" = identify ]; then
	"$bin/supervisor-process" attach --pid "$PPID" --run-dir "$dir/run" --network-uid 65532 \
		--admin-listen "" > /dev/null 2> "$dir/process.log" &
	process=$!
fi
trap 'kill $network $process 2> /dev/null; wait' INT TERM EXIT
wait $network
