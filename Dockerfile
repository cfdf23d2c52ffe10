FROM python:3.12-slim
WORKDIR /lightning_bc
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[report]'
WORKDIR /work
ENTRYPOINT ["python", "-m", "lightning_bc"]
