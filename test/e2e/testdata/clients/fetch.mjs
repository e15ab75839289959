// One line of JSON for each case: what undici's fetch, which is Node's, made of it.
import http from 'node:http'
import { createRequire } from 'node:module'
const { fetch, ProxyAgent } = createRequire(process.env.CLIENTS + '/')('undici')
const [site, other] = process.argv.slice(2)
const dispatcher = new ProxyAgent({ uri: process.env.HTTPS_PROXY, requestTls: { ca: (await import('node:fs')).readFileSync(process.env.SSL_CERT_FILE) } })

async function one(name, url, init = {}) {
  try {
    const r = await fetch(url, { dispatcher, ...init })
    console.log(JSON.stringify({ case: name, status: r.status, policy: r.headers.get('x-openshell-policy') ?? '', body: await r.text() }))
  } catch (e) {
    console.log(JSON.stringify({ case: name, failed: String(e.cause?.cause ?? e.cause ?? e) }))
  }
}
const pieces = new ReadableStream({ start(c) { for (let i = 0; i < 100; i++) c.enqueue(new Uint8Array(1000).fill(120)); c.close() } })
// What Node's own documentation sends: a Host field that names the proxy.
const proxy = new URL(process.env.HTTPS_PROXY)
await new Promise((done) => {
  const say = (what) => { console.log(JSON.stringify({ case: 'bare', ...what })); done() }
  const r = http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: new URL(site).host })
  r.on('connect', (answer, socket) => { socket.destroy(); say({ status: answer.statusCode }) }).on('error', (e) => say({ failed: String(e) })).end()
})
await one('get', site + '/ok/hello')
await one('post', site + '/ok/echo', { method: 'POST', body: 'x'.repeat(100000) })
await one('chunked', site + '/ok/echo', { method: 'POST', body: pieces, duplex: 'half' })
await one('method', site + '/ok/hello', { method: 'DELETE' })
await one('path', site + '/denied')
await one('host', other + '/')
await one('again', site + '/ok/hello')
