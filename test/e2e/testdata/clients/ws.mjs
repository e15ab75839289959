// One line of JSON for each WebSocket: what was said on it, and how it ended.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
const require = createRequire(process.env.CLIENTS + '/')
const WebSocket = require('ws')
const { HttpsProxyAgent } = require('https-proxy-agent')
const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY)
const ca = readFileSync(process.env.SSL_CERT_FILE)

function one(name, url, say, options = {}) {
  return new Promise((done) => {
    const out = { case: name, status: 101, heard: [] }
    const s = new WebSocket(url, { agent, ca, ...options })
    s.on('open', () => { for (const text of say) s.send(text) })
    s.on('message', (data) => { out.heard.push(String(data).slice(0, 100)); if (out.heard.length === say.length) s.close(1000) })
    s.on('unexpected-response', (_, r) => { out.status = r.statusCode; let b = ''; r.on('data', (d) => { b += d }); r.on('end', () => { out.body = b; out.policy = r.headers['x-openshell-policy'] ?? ''; finish(0, '') }) })
    s.on('error', (e) => { out.failed = String(e) })
    s.on('close', finish)
    function finish(code, reason) { out.code = code; out.reason = String(reason); console.log(JSON.stringify(out)); done() }
  })
}
const site = process.argv[2]
await one('text', site + '/ws', ['one', 'two', 'x'.repeat(200000)])
await one('plain', site + '/ws', ['one'], { perMessageDeflate: false })
await one('path', site + '/denied', ['one'])
await one('read only', site + '/ws-quiet', ['one'])
