/** The gameops.yaml that `init` writes: the common keys, each with the one thing to know about it. */
export interface TemplateValues {
  project: string;
  port: number;
  tlsPort: number;
}

export function yamlTemplate({ project, port, tlsPort }: TemplateValues): string {
  return `# What gameops deploys and how. Every key has a default; an unknown key is an error.
# Secrets belong in .env, never here.
project: ${project}

# Host name that players use. Without it Nginx answers to any name.
# domain: play.example.com

# Address and ports of Nginx. 127.0.0.1: reachable from this machine only; 0.0.0.0: from everywhere.
# Port 0: the first deploy chooses a free port and keeps it.
http:
  address: 127.0.0.1
  port: ${port}
  tlsPort: ${tlsPort}

server:
  image: bundled      # or any image that answers /readyz
  replicas: 2
  memory: 512m        # of one replica; during a deploy two fleets run
  cpus: 1
  # env: { MOTD: welcome }   # settings that are not secret

deploy:
  strategy: blue-green   # or rolling
  ready: 60s             # how long a new fleet may take to become ready
  watch: 30s             # how long it is watched before the deploy commits to it
  drain: 5m              # how long the old fleet may take to hand over its players
  keep: 3                # releases kept for rollback

# accessories: { postgres: auto, redis: auto }   # auto: gameops runs them when .env names "postgres" and "redis"
# images: { nginx: "nginx:1.30", postgres: "postgres:18", redis: "redis:8", node: "node:24-slim" }
`;
}
