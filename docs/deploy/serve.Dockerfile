# docker build -f docs/deploy/serve.Dockerfile -t registry.example/awp_serving .
# What python -m pipelines.export wrote, warm-up requests included; see docs/serving.md.
FROM tensorflow/serving
COPY serving /models
CMD ["--model_config_file=/models/models.config", "--monitoring_config_file=/models/monitoring.config"]
