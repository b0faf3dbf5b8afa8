// A real OpenID Connect provider (npm oidc-provider) for scripts/lib/pages-test: provider.mjs DIRECTORY REDIRECT_URI.
// DIRECTORY holds cert.pem and key.pem of its server; it says where it listens, on standard output.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { join } from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [directory, redirect] = process.argv.slice(2);
const require = createRequire(join(process.env.RIA_OIDC_MODULES, "x.js"));
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const server = createServer({ cert: readFileSync(join(directory, "cert.pem")), key: readFileSync(join(directory, "key.pem")) });
server.listen(0, "127.0.0.1", () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: "ria", client_secret: "made for a test", redirect_uris: [redirect] }],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["groups", "name"] },
    // Whoever types a name is that person; what is made sure of is on the other side.
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@uni.example`, email_verified: true, groups: ["robotics"], name: id }),
    }),
    cookies: { keys: ["one key of a test"] },
  });
  server.on("request", provider.callback());
  console.log(`listening ${issuer}`);
});
