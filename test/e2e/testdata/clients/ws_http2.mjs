// One line of JSON for each WebSocket on a stream of HTTP/2 (RFC 8441): what was said on
// it, and how it ended. Node's http2 opens the streams, the ws library speaks on them.
// With a second argument the one WebSocket of that path is kept, until it is closed.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import http2 from 'node:http2'
const require = createRequire(process.env.CLIENTS + '/')
const WebSocket = require('ws')
const site = new URL(process.argv[2])

async function tunnel() {
  const proxy = new URL(process.env.HTTPS_PROXY)
  const tcp = net.connect(proxy.port, proxy.hostname)
  tcp.write(`CONNECT ${site.host} HTTP/1.1\r\nHost: ${site.host}\r\n\r\n`)
  let head = ''
  while (!head.endsWith('\r\n\r\n')) {
    const b = tcp.read(1)
    if (b === null) await new Promise((more) => tcp.once('readable', more))
    else head += b
  }
  if (!head.startsWith('HTTP/1.1 200')) throw new Error(head)
  const secure = tls.connect({ socket: tcp, servername: site.hostname, ca: readFileSync(process.env.SSL_CERT_FILE), ALPNProtocols: ['h2'] })
  await new Promise((done, failed) => { secure.once('secureConnect', done); secure.once('error', failed) })
  return secure
}

const secure = await tunnel()
const session = http2.connect(site, { createConnection: () => secure })
const settings = await new Promise((done) => session.once('remoteSettings', done))
console.log(JSON.stringify({ case: 'settings', status: settings.enableConnectProtocol ? 200 : 0 }))

function one(name, path, say, { protocol = 'websocket', opened = () => {} } = {}) {
  return new Promise((done) => {
    const out = { case: name, status: 0, heard: [] }
    const finish = () => { console.log(JSON.stringify(out)); done() }
    const stream = session.request({ ':method': 'CONNECT', ':protocol': protocol, ':scheme': 'https', ':authority': site.host, ':path': path, 'sec-websocket-version': '13' })
    stream.on('error', (e) => { out.failed = String(e) })
    stream.once('response', (h) => {
      out.status = h[':status']
      if (out.status !== 200) {
        out.body = ''
        out.policy = h['x-openshell-policy'] ?? ''
        stream.on('data', (d) => { out.body += d })
        stream.on('close', finish)
        return
      }
      if ('sec-websocket-accept' in h || 'upgrade' in h || 'connection' in h) out.failed = 'fields of HTTP/1.1: ' + JSON.stringify(h)
      const s = new WebSocket(null, undefined, {})
      s._isServer = false
      s.on('message', (data) => { out.heard.push(String(data).slice(0, 100)); if (out.heard.length === say.length) s.close(1000) })
      s.on('error', (e) => { out.failed = String(e) })
      s.on('close', (code, reason) => { out.code = code; out.reason = String(reason); finish() })
      s.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 1 << 24, skipUTF8Validation: false })
      opened()
      for (const text of say) s.send(text)
    })
  })
}

if (process.argv[3]) {
  await one('kept', process.argv[3], [], { opened: () => console.log(JSON.stringify({ case: 'open', status: 200 })) })
} else {
  await one('text', '/ws', ['one', 'two', 'x'.repeat(200000)])
  await one('path', '/denied', ['one'])
  await one('read only', '/ws-quiet', ['one'])
  await one('content', '/mcp', ['one'])
  await one('udp', '/ws', [], { protocol: 'connect-udp' })
  await Promise.all(Array.from({ length: 20 }, (_, i) => one('side by side ' + i, '/ws', ['a' + i, 'b' + i])))
}
session.close()
