# Programs people run, in a sandbox without network: one line "ok NAME" each.
set -u
dir=$(mktemp -d) && cd "$dir" && export HOME="$dir"
check() {
  name=$1
  shift
  if out=$("$@" 2>&1); then echo "ok $name"; else echo "FAIL $name: $(echo "$out" | tail -5)"; fi
}
check bash bash -c 'for i in 1 2 3; do (sleep 0.01) & done; wait; [ "$(echo a | tr a b)" = b ]'
check python python3 -c '
import threading, subprocess, multiprocessing, sqlite3, ssl, asyncio, os, socket
t = [threading.Thread(target=lambda: None) for _ in range(20)]; [x.start() for x in t]; [x.join() for x in t]
assert subprocess.run(["echo", "x"], capture_output=True).stdout == b"x\n"
async def child():
    p = await asyncio.create_subprocess_exec("true"); assert await p.wait() == 0
asyncio.run(child())
with multiprocessing.Pool(2) as p: assert p.map(abs, [-1, 2]) == [1, 2]
c = sqlite3.connect("x.db"); c.execute("create table t(a)"); c.commit()
os.write(os.open(".", os.O_TMPFILE | os.O_RDWR), b"x")
socket.if_nameindex()
'
check node node -e '
const {Worker} = require("worker_threads"); new Worker("1", {eval: true});
require("child_process").execSync("echo hi"); require("os").networkInterfaces();
require("http").createServer((q, r) => r.end("x")).listen(0, "127.0.0.1", function () {
  require("http").get({host: "127.0.0.1", port: this.address().port}, r => r.on("data", () => process.exit(0)));
})'
check npm sh -c 'mkdir dep n && (cd dep && npm init -y) && cd n && npm init -y && npm install --offline --no-audit --no-fund ../dep'
check pip sh -c 'python3 -m venv --without-pip v && v/bin/python -c "import sys; sys.exit(sys.prefix == sys.base_prefix)"'
check gcc sh -c 'echo "int main(){return 0;}" > a.c && gcc a.c -o a && ./a'
check go sh -c 'export GOCACHE=$PWD/c GOPATH=$PWD/g GOTELEMETRY=off GOTOOLCHAIN=local; printf "package main\nfunc main() { println(1) }\n" > m.go && go run m.go'
check git sh -c 'git init -q r && cd r && git config user.email a@b && git config user.name x && echo 1 > f && git add f && git commit -qm m && git gc -q && git log --oneline'
check sqlite sqlite3 y.db 'create table t(a); insert into t values(1); select * from t;'
check perl perl -e 'defined(my $p = fork) or die; exit 0 unless $p; wait; exit $? >> 8'
check tar sh -c 'tar czf t.tgz a.c && tar xzf t.tgz'
check java java -version
check terminal script -qec true /dev/null
